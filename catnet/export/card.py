"""The model card: what a stranger must know before using the weights, in Markdown.

Paper: "Model Cards for Model Reporting", Mitchell et al., FAT* 2019, arXiv 1810.03993.
"""

from catnet.config import Run
from catnet.data.card import Card
from catnet.export.numbers import Told, dice_table
from catnet.model.network import Network
from catnet.runs import RunFolder

FEW = 10  # patients below which a mean says little

TEMPLATE = """\
---
library_name: catnet
pipeline_tag: image-segmentation
license: other
license_name: see-below
tags: [medical-imaging, few-shot, segmentation, {modality}]
---

# {name}

A network ({network}) that segments an organ in a scan from a labelled slice of another patient.
**Not a medical device.** It is for research, and no decision about a patient may rest on it.

## Use

```
pip install catnet
catnet predict --model FOLDER --support IMAGE LABEL --query SCAN -o OUT
```

or as a MONAI bundle (`pip install fire`), from within this folder:

```
python -m monai.bundle run --config_file configs/inference.json --support_image IMAGE \\
    --support_label LABEL --query SCAN --output_dir OUT
```

`catnet.load_network(FOLDER)` gives the PyTorch module. Scans are prepared as `card.yml` says.

## Data

- {title} ({modality}), {source}
- License of the data: {license}. Weights that were trained on it may be bound by it.
- Citation: {citation}
- Fold {fold} was held back, setting {setting}, training labels: {labels}. Hashes of every scan
  stand in `provenance.json`.

## Training

{steps} steps of {batch} episodes, {parameters:,} parameters, encoder {encoder} from {weights},
seed {seed}, commit {commit}. Every setting stands in `provenance.json`.

## Evaluation

EP1 cuts the query to the slices that show the organ, and takes three support slices; EP2 is the
whole volume and one support slice, as in `catnet predict`. `copy` is the support's mask, unchanged,
`untrained` the network before training: a result that is not above them means nothing.
Intervals are bootstrapped over patients, and say nothing about other hospitals and scanners.

{evaluation}

## Limits

- It was tested on {modality} of one data set, on these organs: {organs}. Other scanners, sequences,
  contrast phases, children and diseases were not tested.
- It segments every slice by itself, from one slice of each support; it can find an organ where
  there is none.
- The confidence that `catnet predict` prints is the mean probability inside of the mask. It is not
  calibrated.
- Where a scan looks unlike the support, `catnet predict` warns; it cannot notice everything.

## License

Code: Apache-2.0. The weights: as the license of the data allows.
"""


def model_card(
    folder: RunFolder, network: Network, provenance: dict, evaluations: list[Told]
) -> str:
    """The card of a run's network; where nothing was evaluated it says so."""
    run, card = folder.run, folder.card
    return TEMPLATE.format(
        name=folder.path.name,
        network=run.model.name,
        evaluation=evaluation_text(evaluations, folder.path.name),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        encoder=run.model.encoder,
        weights=initial_weights(network.settings.encoder_weights),
        commit=provenance.get("commit", "unknown"),
        organs=", ".join(card.organs),
        **data_words(card),
        **training_words(run),
    )


def data_words(card: Card) -> dict[str, object]:
    """What the data card says, a line each."""
    keys = ("title", "source", "license", "citation", "modality")
    return {key: " ".join(str(getattr(card, key)).split()) for key in keys}


def training_words(run: Run) -> dict[str, object]:
    """How the run was trained."""
    return {
        "fold": run.data.fold,
        "setting": run.data.setting,
        "labels": run.data.labels,
        "steps": f"{run.train.steps:,}",
        "batch": run.train.batch,
        "seed": run.seed,
    }


def initial_weights(name: str) -> str:
    """Where the encoder began."""
    return "random weights" if name == "none" else f"the weights {name}"


def evaluation_text(evaluations: list[Told], run: str) -> str:
    """A table for every evaluation, with what it was made of."""
    if not evaluations:
        return f"**Not evaluated.** `catnet evaluate {run}`, then `catnet export` again."
    return "\n\n".join(one_evaluation(told) for told in evaluations)


def one_evaluation(told: Told) -> str:
    """Its support policy, its table, and a caution where patients are few."""
    patients = told.rows["query"].nunique()
    shots = told.settings.shots
    text = (
        f"Support: {told.settings.support}, {shots} {'shot' if shots == 1 else 'shots'}.\n\n"
        f"{dice_table(told)}"
    )
    if patients < FEW:
        text += f"\n\nOnly {patients} patients: a smoke test more than a result."
    return text
