"""One step of training as a file: its episodes, and the weights before it where they are at hand.

No pickle: safetensors with `episode/FIELD` and `weights/NAME`, the settings of the run as header
text; so it can be recomputed wherever it is taken.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from catnet.config import Run
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.files import write_bytes
from catnet.strict import explain

SIDE = 32  # pixels that the sides of a slice are multiples of


@dataclass(frozen=True)
class Snapshot:
    """A step, counted from 1 as in the log; without `weights` a run's folder has to give them."""

    run: Run
    step: int
    episode: Episode
    weights: Mapping[str, Tensor] | None


def snapshot_path(folder: Path, step: int) -> Path:
    """Where the step that ended a run lies in `folder`, the one of that run for such steps."""
    return folder / f"fault-{step:0>8}.safetensors"


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
        episode = {field.name: tensors.pop(f"episode/{field.name}") for field in fields(Episode)}
        settings, step = json.loads(facts["run"]), int(facts["step"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        why = str(error).partition("\n")[0]
        raise UserError(
            f"{path}: holds no step of a run ({why}); give the file that a run has ended with, or "
            "a run's folder and --step"
        ) from None
    try:
        run = Run.model_validate(settings)
        check_step(step, run)
        check_episode(episode)
    except ValueError as error:
        why = str(error)
        if isinstance(error, ValidationError):
            why = "run: " + explain(Run, error.errors()[0]).removeprefix(": ")
        raise UserError(
            f"{path}: is no snapshot of a step ({why}); train the run again to make another"
        ) from None
    weights = {name.removeprefix("weights/"): value for name, value in tensors.items()}
    return Snapshot(run, step, Episode(**episode), weights or None)


def check_step(step: int, run: Run) -> None:
    """Raise `ValueError` for a step that the run does not have."""
    if not 1 <= step <= run.train.steps:
        raise ValueError(f"its run has the steps 1 to {run.train.steps}, and no {step}")


def check_episode(tensors: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` for what is no `Episode`; pixels that are no numbers belong to some."""
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, not float32")
    check_shapes(tensors)
    for name in ("support_mask", "query_mask"):
        mask = tensors[name]
        if not ((mask == 0) | (mask == 1)).all():
            raise ValueError(f"{name} holds other values than 0 and 1")


def check_shapes(tensors: Mapping[str, Tensor]) -> None:
    """Raise `ValueError` for tensors that do not belong together, or hold no episode."""
    support = tensors["support"]
    if support.dim() != 5:
        raise ValueError(f"support has {support.dim()} axes, not the 5 of b s 1 h w")
    b, s, _, h, w = support.shape
    shapes = {
        "support": (b, s, 1, h, w),
        "support_mask": (b, s, h, w),
        "query": (b, 1, h, w),
        "query_mask": (b, h, w),
    }
    for name, shape in shapes.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name} is {times(tensors[name].shape)}, not {times(shape)}")
    if 0 in support.shape:
        raise ValueError(f"support is {times(support.shape)}, and so holds nothing")
    if h % SIDE or w % SIDE:
        raise ValueError(f"the slices are {times((h, w))}, and no multiples of {SIDE}")


def times(shape: Sequence[int]) -> str:
    """A shape as `2 x 64 x 64`."""
    return " x ".join(map(str, shape)) or "one number"
