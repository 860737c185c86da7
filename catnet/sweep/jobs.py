"""The runs of a question as jobs, and how far each of them is, read from its folder.

A job is one network: variants that differ only in how it is evaluated share one.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from catnet.errors import UserError
from catnet.evaluations import finished_evaluation
from catnet.files import held
from catnet.question import Question, Variant, describe
from catnet.runs import (
    LOG,
    TIMING,
    RunFolder,
    find_same_run,
    folders_by_identity,
    read_json_lines,
)
from catnet.sweep.plan import check_plan

State = Literal["waiting", "running", "done", "failed"]
States = Mapping[int, State]
COMPLAINT, ATTEMPT = "catnet: ", "--- attempt of "


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

    @property
    def state(self) -> State:
        """What its folder tells; a damaged one waits, and the job itself will say what is wrong."""
        try:
            if self.finished:
                return "done"
        except UserError:
            return "waiting"
        if held(self.folder.path):
            return "running"
        return "failed" if complaints(self) else "waiting"


@dataclass(frozen=True)
class Progress:
    """Finished steps of all; the last loss and the seconds left, where there are any."""

    step: int
    steps: int
    loss: float | None
    left: float | None


def plan_jobs(question: Question) -> tuple[Job, ...]:
    """The jobs of a question, in its order, numbered from 1.

    Raises `UserError` for a question whose runs cannot answer it (`catnet.sweep.plan`).
    """
    grouped: dict[Path, list[tuple[RunFolder, Variant]]] = {}
    known = folders_by_identity()
    folders = tuple(find(one, known=known, source=question.source) for one in question.variants)
    check_plan(question, folders)
    for variant, folder in zip(question.variants, folders, strict=True):
        others = grouped.setdefault(folder.path, [])
        if variant.run.evaluate.name() in {known.run.evaluate.name() for _, known in others}:
            raise UserError(
                f"{question.source}: two of its runs are the same ({describe(variant)}); take one "
                "of them out of vary"
            )
        others.append((folder, variant))
    return tuple(
        Job(number, pairs[0][0], tuple(variant for _, variant in pairs))
        for number, pairs in enumerate(grouped.values(), start=1)
    )


def find(variant: Variant, *, known: Mapping[str, Sequence[Path]], source: str) -> RunFolder:
    """Where a variant lives, or would live; raises `UserError` that names the question's file."""
    try:
        return find_same_run(variant.run, known=known)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def job_command(file: Path, settings: Sequence[str], job: Job) -> list[str]:
    """The command that does one job of a question in a process of its own.

    It names the run by what it is, in case the file changes meanwhile.
    """
    command = [sys.executable, "-m", "catnet", "sweep", str(file), *settings]
    return [*command, "--only", job.folder.identity]


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
    said = complaints(job)
    return said[-1].removeprefix(COMPLAINT) if said else "ended without a word; see its log"


def complaints(job: Job) -> list[str]:
    """What the last attempt at a job complained of."""
    try:
        text = job.log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    last = text.rpartition(ATTEMPT)[2]
    return [line for line in last.splitlines() if line.startswith(COMPLAINT)]
