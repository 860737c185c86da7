"""What segments: a run, an exported folder, one of a hub, or `copy`, which needs no training."""

import difflib
from dataclasses import dataclass
from pathlib import Path

import torch

from catnet.config import MachineSettings
from catnet.data.card import Card, load_card
from catnet.engine import choose_device, set_up_cpu
from catnet.errors import UserError
from catnet.evaluate.predictors import CopyPredictor, NetworkPredictor, Predictor
from catnet.evaluate.run import DTYPE
from catnet.files import file_hash
from catnet.model.hub import HUB, local_folder
from catnet.model.network import WEIGHTS
from catnet.model.networks import load_network
from catnet.paths import runs_home
from catnet.runs import CARD, PROVENANCE, open_run_folder, read_provenance

COPY = "copy"


@dataclass(frozen=True)
class Model:
    """A predictor, and the card that its scans are prepared by; None where the support decides."""

    name: str
    predictor: Predictor
    card: Card | None


def open_model(place: str, *, card: str | None, accelerator: str) -> Model:
    """The model that `--model` names; raises `UserError` where there is none.

    `card` is for `copy` alone: a trained network sees scans prepared as those it was trained on.
    """
    if place == COPY:
        return Model(COPY, CopyPredictor(), None if card is None else load_card(card))
    if card is not None:
        raise UserError(f"--card: {place} has the card it was trained with; leave --card out")
    machine = MachineSettings(accelerator=accelerator)
    set_up_cpu(machine)
    device = choose_device(machine)
    if not place.startswith(HUB) and not (Path(place) / WEIGHTS).is_file():
        return open_run(place, device)
    return open_export(place, device)


def open_run(place: str, device: torch.device) -> Model:
    """A run that `catnet train` made."""
    if not (Path(place).exists() or (runs_home() / place).exists()):
        near = difflib.get_close_matches(place, [COPY], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "see `catnet predict --help`"
        raise UserError(
            f"--model {place}: no run, no folder that `catnet export` wrote, not {HUB}OWNER/NAME, "
            f"and not {COPY!r}; {hint}"
        )
    folder = open_run_folder(Path(place))
    if not folder.trained:
        raise UserError(
            f"{folder.path}: training has not ended; run the `catnet train` command that made it "
            "again, it goes on from the last checkpoint"
        )
    precision = DTYPE[folder.run.train.precision]
    network = load_network(folder.model)
    predictor = NetworkPredictor(network, device=device, precision=precision)
    return Model(folder.path.name, predictor, folder.card)


def open_export(place: str, device: torch.device) -> Model:
    """A folder that `catnet export` made, here or on a hub."""
    folder = local_folder(place)
    if not (folder / CARD).is_file():
        raise UserError(
            f"{folder}: has no {CARD}, which says how scans are prepared; export the run again"
        )
    try:
        known = read_provenance(folder / PROVENANCE)
    except UserError:
        raise UserError(f"{folder / PROVENANCE}: damaged; export the run again") from None
    if known.get("weights", "") not in {"", file_hash(folder / WEIGHTS)}:
        raise UserError(
            f"{folder / WEIGHTS}: is not the file that {PROVENANCE} tells of; get the folder "
            "again, or export the run again"
        )
    precision = DTYPE.get(str(known.get("precision")), torch.float32)
    predictor = NetworkPredictor(load_network(folder), device=device, precision=precision)
    return Model(str(known.get("run", place)), predictor, load_card(str(folder / CARD)))
