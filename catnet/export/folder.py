"""The folder of a trained network that is shared: what `load_network` and `catnet predict` read.

DIR/model.json, model.safetensors   the network, as `save_pretrained` writes it
   /card.yml                        how scans are prepared
   /provenance.json                 run, settings, commit, versions, hashes of the data
   /MODEL_CARD.md                   data, protocol, Dice, limits
   /configs/                        a MONAI bundle's metadata and inference
"""

import hashlib
import os
from pathlib import Path

from catnet.errors import UserError, writing
from catnet.export.bundle import inference, metadata
from catnet.export.card import model_card
from catnet.export.numbers import finished
from catnet.files import HOLDER, LOCK, alone, write_text
from catnet.model.network import SETTINGS, WEIGHTS, Network
from catnet.model.networks import load_network
from catnet.runs import (
    CARD,
    PROVENANCE,
    RunFolder,
    open_run_folder,
    read_provenance,
    write_json,
    write_yaml,
)

MODEL_CARD = "MODEL_CARD.md"


def export(run: Path, target: Path, *, again: bool) -> int:
    """Write a run's folder to share; the weights come last. Gives how many evaluations it tells of.

    Raises `UserError` where training has not ended, and where the folder holds something else.
    """
    folder = open_run_folder(run)
    if not folder.trained:
        raise UserError(
            f"{folder.path}: training has not ended; run the `catnet train` command that made it "
            "again, it goes on from the last checkpoint"
        )
    check_target(target, again=again)
    network = portable(load_network(folder.model))
    evaluations = finished(folder)
    known = provenance(folder, network)
    with alone(target):
        with writing(target):
            (target / WEIGHTS).unlink(missing_ok=True)
        write_yaml(target / CARD, folder.card.model_dump(mode="json"))
        write_json(target / PROVENANCE, known)
        write_text(target / MODEL_CARD, model_card(folder, network, known, evaluations))
        write_json(target / "configs" / "metadata.json", metadata(folder, known))
        write_json(target / "configs" / "inference.json", inference())
        network.save_pretrained(target)
    return len(evaluations)


def check_target(target: Path, *, again: bool) -> None:
    """Raise `UserError` where files could be lost, or none written."""
    if target.exists() and not (target.is_dir() and os.access(target, os.W_OK)):
        raise UserError(f"{target}: no folder that you may write to; name another one")
    held = {path.name for path in target.glob("*")} - {LOCK, HOLDER}
    ours = (target / SETTINGS).is_file() and (target / MODEL_CARD).is_file()
    if held and not ours:
        raise UserError(f"{target}: holds other files; name a new folder, or an empty one")
    if held and not again:
        raise UserError(f"{target}: is there already; --again writes it anew")


def portable(network: Network) -> Network:
    """The network without the place that its first encoder weights had on this machine."""
    name = Path(network.settings.encoder_weights).name
    network.settings = network.settings.model_copy(update={"encoder_weights": name})
    return network


def provenance(folder: RunFolder, network: Network) -> dict:
    """What the weights came from, and their SHA-256; `precision` is that of the forward pass."""
    settings = folder.run.model_dump(mode="json")
    settings["model"] = network.settings.model_dump(mode="json")
    settings["data"]["card"] = folder.card.name
    return {
        "run": folder.path.name,
        "precision": folder.run.train.precision,
        **read_provenance(folder.path / PROVENANCE),
        "weights": hashlib.sha256(network.weights()).hexdigest(),
        "settings": settings,
    }
