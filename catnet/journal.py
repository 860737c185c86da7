"""What a training run leaves behind: a line of JSON, TensorBoard scalars and episode pictures."""

import json
import re
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import torch
from torch import nn

from catnet.engine import Engine
from catnet.episode import Episode
from catnet.files import write_text
from catnet.model.loss import Losses
from catnet.pictures import PREDICTED, TRUTH, Panel, draw_panels
from catnet.runs import COST, LOG, TIMING, RunFolder, read_json_lines, write_json


@dataclass(frozen=True)
class Progress:
    """How far a run is: finished steps of all, the loss and the steps a second of late."""

    step: int
    steps: int
    loss: float
    speed: float


class Journal:
    """Records a run; lines of steps that a killed run did not save are taken back first."""

    def __init__(
        self, folder: RunFolder, *, engine: Engine, done: int, report: Callable[[Progress], None]
    ) -> None:
        self.folder = folder
        self.engine = engine
        self.report = report
        self.done = done
        self.last = (done, time.monotonic())
        if engine.first:
            forget_after(self.path, done)
            forget_after(self.timing, done)

    @property
    def path(self) -> Path:
        """The log."""
        return self.folder.path / LOG

    @property
    def timing(self) -> Path:
        """Seconds an episode; not in the log, which is the same whatever the machine does."""
        return self.folder.path / TIMING

    @cached_property
    def board(self) -> "SummaryWriter":  # noqa: F821
        """TensorBoard's writer, which forgets what lies after the resumed step."""
        from torch.utils.tensorboard import SummaryWriter  # late: it costs seconds

        return SummaryWriter(str(self.folder.path / "tensorboard"), purge_step=self.done + 1)

    def after(self, step: int, losses: Losses, episode: Episode, *, rate: float) -> None:
        """Record a finished step where it is due."""
        machine, steps = self.folder.run.machine, self.folder.run.train.steps
        if step % machine.log_every == 0 or step == steps:
            self.write(step, losses, rate=rate)
        if self.engine.first and step % machine.picture_every == 0:
            self.board.add_figure("episode", draw_episode(losses, episode), step)

    def write(self, step: int, losses: Losses, *, rate: float) -> None:
        """One line of the log, means over the processes, and the same as scalars."""
        parts = (losses.total.detach(), losses.segmentation, losses.alignment)
        loss, segmentation, alignment = self.engine.mean(torch.stack(parts).float()).tolist()
        if not self.engine.first:
            return
        values = {"loss": loss, "segmentation": segmentation, "alignment": alignment, "rate": rate}
        before, then = self.last
        now = time.monotonic()
        self.last = (step, now)
        steps, batch = self.folder.run.train.steps, self.folder.run.train.batch
        seconds = (now - then) / ((step - before) * batch)
        with self.path.open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, **values}) + "\n")
        with self.timing.open("a", encoding="utf-8") as timing:
            timing.write(json.dumps({"step": step, "seconds": seconds}) + "\n")
        for name, value in values.items():
            self.board.add_scalar(name, value, step)
        self.board.flush()  # else a kill loses what a checkpoint will not bring back
        self.report(Progress(step, steps, loss, speed=1 / max(seconds * batch, 1e-9)))

    def close(self, model: nn.Module) -> None:
        """Write out what TensorBoard still holds, and what training `model` has cost."""
        if self.engine.first:
            self.board.close()
            write_json(self.folder.path / COST, self.cost(model))

    def cost(self, model: nn.Module) -> dict[str, float]:
        """Seconds an episode (median over the log), peak memory of this process, weights.

        The memory is what the tensors held on a GPU, and all that the process held on a CPU.
        """
        device = self.engine.device
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_resident()
        return {
            "episode_seconds": median(line["seconds"] for line in read_json_lines(self.timing)),
            "memory_mib": peak / 2**20,
            "parameters": sum(weight.numel() for weight in model.parameters()),
        }


def peak_resident() -> int:
    """Bytes of memory that this process held at most.

    Linux hands `ru_maxrss` on from a process to what it starts, so its own mark is read there.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    if found:
        return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def forget_after(path: Path, step: int) -> None:
    """Take back the lines of a log that tell of later steps, or that were cut off."""
    lines = read_json_lines(path)
    kept = [json.dumps(line) + "\n" for line in lines if line["step"] <= step]
    if kept or path.exists():
        write_text(path, "".join(kept))


def draw_episode(losses: Losses, episode: Episode, *, most: int = 1) -> "Figure":  # noqa: F821
    """The first episodes of a step: support, query, and the query mask after every round."""
    rows = [episode_row(losses, episode[k : k + 1], k) for k in range(min(most, len(episode)))]
    return draw_panels(rows, flip=False)


def episode_row(losses: Losses, episode: Episode, number: int) -> list[Panel]:
    """One episode, which is `number` in its batch."""
    rounds = [mask[number].detach().float().cpu().numpy() for mask in losses.prediction.rounds]
    support, query = (x.cpu().numpy() for x in (episode.support[0, 0, 0], episode.query[0, 0]))
    support_mask, query_mask = (
        x.cpu().numpy() for x in (episode.support_mask[0, 0], episode.query_mask[0])
    )
    return [
        Panel("support", support, {TRUTH: support_mask}),
        *(
            Panel(f"M_{number}", query, {TRUTH: query_mask, PREDICTED: mask})
            for number, mask in enumerate(rounds)
        ),
    ]
