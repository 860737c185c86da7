"""One step of training as a file: its episodes, and the weights before it where they are at hand.

No pickle: safetensors with `episode/FIELD` and `weights/NAME`, the settings of the run as header
text; so it can be recomputed wherever it is taken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from catnet.config import Run
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.files import write_bytes

FOLDER = "replay"  # in the folder of a run


@dataclass(frozen=True)
class Snapshot:
    """A step, counted from 1 as in the log; without `weights` a run's folder has to give them."""

    run: Run
    step: int
    episode: Episode
    weights: Mapping[str, Tensor] | None


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the step that ended a run lies, in the folder of that run."""
    return folder / FOLDER / f"fault-{step:0>8}.safetensors"


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a step; raises `UserError` where the disk does not take it."""
    episode = snapshot.episode.to("cpu")
    tensors = {f"episode/{field.name}": getattr(episode, field.name) for field in fields(Episode)}
    for name, value in (snapshot.weights or {}).items():
        tensors[f"weights/{name}"] = value.detach().cpu()
    facts = {"step": str(snapshot.step), "run": snapshot.run.model_dump_json()}
    content = save({name: value.contiguous() for name, value in tensors.items()}, metadata=facts)
    write_bytes(path, content)


def load_snapshot(path: Path) -> Snapshot:
    """Read what `save_snapshot` wrote; raises `UserError` for any other file."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        episode = Episode(*(tensors.pop(f"episode/{field.name}") for field in fields(Episode)))
        run = Run.model_validate_json(facts["run"])
        step = int(facts["step"])
    except (OSError, SafetensorError, KeyError, ValueError, ValidationError) as error:
        why = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: holds no step of a run ({why}); give the file that a run has ended with, or "
            "a run's folder and --step"
        ) from None
    weights = {name.removeprefix("weights/"): value for name, value in tensors.items()}
    return Snapshot(run, step, episode, weights or None)
