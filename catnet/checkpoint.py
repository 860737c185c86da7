"""Checkpoints: weights, optimizer state and the number of finished steps, in one safetensors file.

No pickle: tensors under `model/NAME` and `optimizer/PARAMETER/NAME`, the rest as header text, and a
checksum over all of it: a bit that has turned, a tensor that is gone or another step is noticed.
Each file is written beside its place and moved there, and the one before it is kept, so that a run
that is killed at any moment finds a whole one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.files import write_bytes
from catnet.model.weights import first_difference

KEPT = 2
FIELDS = {  # what an optimizer keeps of a weight
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, step: int, run: str
) -> None:
    """Write the state after `step` steps of the run with identity `run`.

    Raises `UserError` where the disk does not take it; the checkpoints before it stay.
    """
    tensors = {f"model/{name}": value.contiguous() for name, value in model.state_dict().items()}
    for number, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{number}/{name}"] = value.contiguous()
    facts = {"step": str(step), "run": run}
    content = save(tensors, metadata={**facts, "checksum": checksum(tensors, facts)})
    write_bytes(folder / file_name(str(step)), content)
    for old in (*checkpoints(folder)[:-KEPT], *folder.glob(".*-step-*")):
        old.unlink(missing_ok=True)  # the hidden ones are what a kill cut off


def file_name(step: str) -> str:
    """What the checkpoint after so many steps is called."""
    return f"step-{step:0>8}.safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, run: str
) -> int:
    """Restore `model` and `optimizer`; returns the number of finished steps.

    Raises `UserError` for a file that is damaged, or of another run, architecture or optimizer;
    nothing is changed then.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: damaged checkpoint ({error}); delete it") from None
    check_facts(path, facts, run=run)
    if facts.pop("checksum", None) != checksum(tensors, facts):
        raise UserError(f"{path}: damaged checkpoint (its checksum is another); delete it")
    weights = under("model/", tensors)
    if name := first_difference(model.state_dict(), weights):
        raise UserError(f"{path}: checkpoint of another architecture ({name}); delete it")
    state = optimizer_state(path, under("optimizer/", tensors), optimizer)
    model.load_state_dict(weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    lay_out(optimizer)
    return int(facts["step"])


def optimizer_state(
    path: Path, tensors: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """What a file holds under `PARAMETER/NAME`, by parameter; raises `UserError` as above."""
    weights = (weight for group in optimizer.param_groups for weight in group["params"])
    shapes = {str(number): weight.shape for number, weight in enumerate(weights)}
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        number, _, field = name.partition("/")
        wanted = torch.Size() if field == "step" else shapes.get(number)
        if number not in shapes or field not in FIELDS[type(optimizer)] or value.shape != wanted:
            raise UserError(f"{path}: checkpoint of another optimizer ({name}); delete it")
        state.setdefault(int(number), {})[field] = value
    return state


def lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Let what is kept of a weight lie in memory as the weight does, so that steps round alike."""
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == weight.shape:
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def check_facts(path: Path, facts: dict[str, str], *, run: str) -> None:
    """Raise `UserError` where a file's header tells of another run, or of another step."""
    if facts.get("run") != run:
        raise UserError(f"{path}: belongs to run {facts.get('run')}, not {run}; delete it")
    if path.name != file_name(facts.get("step", "")):
        raise UserError(f"{path}: holds step {facts.get('step')} by another name; delete it")


def checksum(tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """SHA-256 of everything in a file: what it tells, and every tensor's name, type and bytes."""
    seal = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        seal.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        seal.update(memoryview(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy()))
    return seal.hexdigest()


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix`, by the rest of it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
