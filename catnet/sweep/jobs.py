"""The runs of a question as jobs, and how far each of them is, read from its folder.

A job is one network: variants that differ only in how it is evaluated share one.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from catnet.evaluations import finished_evaluation
from catnet.question import Question, Variant
from catnet.runs import LOG, TIMING, RunFolder, find_same_run, read_json_lines

State = Literal["waiting", "running", "done", "failed"]
States = Mapping[int, State]
COMPLAINT = "catnet: "


@dataclass(frozen=True)
class Job:
    """One network to train, and the variants that it is evaluated as."""

    number: int
    folder: RunFolder
    variants: tuple[Variant, ...]

    @property
    def log(self) -> Path:
        """What the job has printed."""
        return self.folder.path / "console.log"

    @property
    def evaluations(self) -> tuple[RunFolder, ...]:
        """The run, once for every way it is evaluated."""
        return tuple(replace(self.folder, run=variant.run) for variant in self.variants)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train or to evaluate."""
        return self.folder.trained and all(map(finished_evaluation, self.evaluations))


@dataclass(frozen=True)
class Progress:
    """Finished steps of all; the last loss and the seconds left, where there are any."""

    step: int
    steps: int
    loss: float | None
    left: float | None


def plan_jobs(question: Question) -> tuple[Job, ...]:
    """The jobs of a question, in its order, numbered from 0."""
    grouped: dict[Path, list[tuple[RunFolder, Variant]]] = {}
    for variant in question.variants:
        folder = find_same_run(variant.run)
        grouped.setdefault(folder.path, []).append((folder, variant))
    return tuple(
        Job(number, pairs[0][0], tuple(variant for _, variant in pairs))
        for number, pairs in enumerate(grouped.values())
    )


def job_command(file: Path, settings: Sequence[str], number: int) -> list[str]:
    """The command that does one job of a question in a process of its own."""
    return [sys.executable, "-m", "catnet", "sweep", str(file), *settings, "--only", str(number)]


def progress_of(job: Job) -> Progress:
    """How far the training of a job is, by the last line of its log."""
    steps = job.folder.run.train.steps
    losses, times = (read_json_lines(job.folder.path / name) for name in (LOG, TIMING))
    if not losses or not times:
        return Progress(0, steps, None, None)
    step = losses[-1]["step"]
    left = (steps - step) * job.folder.run.train.batch * times[-1]["seconds"]
    return Progress(step, steps, losses[-1]["loss"], left)


def error_of(job: Job) -> str:
    """The sentence with which a job has failed, or where to look."""
    try:
        lines = job.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [line for line in lines if line.startswith(COMPLAINT)]
    return said[-1].removeprefix(COMPLAINT) if said else "ended without a word; see its log"
