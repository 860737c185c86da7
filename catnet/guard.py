"""Ends a run at the first step whose loss or gradient is no number, before that step is saved.

On a CPU it looks at every step. A GPU would have to be waited for, so there the first such step is
noted on the device, and looked for where the log or a checkpoint is due.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from catnet.engine import Engine
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.runs import RunFolder
from catnet.snapshot import Snapshot, save_snapshot, snapshot_path


class Guard:
    """Watches the steps of a run; `redraw(step)` gives all episodes of a step once more."""

    def __init__(
        self, folder: RunFolder, *, engine: Engine, redraw: Callable[[int], Episode]
    ) -> None:
        self.folder = folder
        self.engine = engine
        self.redraw = redraw
        self.eager = engine.device.type == "cpu"
        # step, loss and gradient norm of the first bad step; step 0 is none yet
        self.fault = torch.zeros(3, dtype=torch.float64, device=engine.device)

    def check(
        self, step: int, *, loss: Float[Tensor, ""], norm: Float[Tensor, ""], model: nn.Module
    ) -> None:
        """Look at a step, counted from 1, whose gradient was computed but not applied yet.

        Raises `UserError`, which names the file to replay, for a step that is no number.
        """
        loss, norm = loss.detach().double(), norm.double()
        sound = loss.isfinite() & norm.isfinite() | (self.fault[0] > 0)
        now = torch.stack([torch.full_like(loss, step), loss, norm])
        self.fault = torch.where(sound, self.fault, now)
        if self.eager or self.due(step):
            first, loss_then, norm_then = self.fault.tolist()
            if first:
                self.end(int(first), loss_then, norm_then, model if first == step else None)

    def due(self, step: int) -> bool:
        """Whether something of this step will be kept."""
        machine, steps = self.folder.run.machine, self.folder.run.train.steps
        return step == steps or not (step % machine.log_every and step % machine.checkpoint_every)

    def end(self, step: int, loss: float, norm: float, model: nn.Module | None) -> None:
        """Save the step, with the weights before it where `model` still has them, and raise."""
        path = snapshot_path(self.folder.replay, step)
        if self.engine.first:
            weights = None if model is None else model.state_dict()
            save_snapshot(path, Snapshot(self.folder.run, step, self.redraw(step), weights))
        what, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
        half = self.folder.run.train.precision == "bfloat16"
        remedy = "lower train.rate" + (" or use train.precision=float32" if half else "")
        raise UserError(
            f"{self.folder.path}: the {what} of step {step} is {value}; {remedy}, then start a new "
            f"run; `catnet replay {path}` shows the step"
        )
