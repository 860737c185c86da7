"""Runs that are unfinished, damaged, or have lost the data they were trained on."""

from collections.abc import Iterator
from pathlib import Path

from catnet.data.store import open_cases
from catnet.doctor.line import Line, ask
from catnet.errors import UserError
from catnet.files import held
from catnet.paths import runs_home
from catnet.runs import LOG, SETTINGS, RunFolder, check_unchanged, open_run_folder, read_json_lines

SWEEPS = "sweeps"
MARKS = ("checkpoints", "model", LOG, "evaluations")  # what only runs have


def runs() -> Iterator[Line]:
    """One line for the runs that are whole, and one for each that is not."""
    folders = sorted(path for path in runs_home().glob("[!.]*") if path.is_dir())
    found = [
        line
        for folder in folders
        if folder.name != SWEEPS
        for line in ask(f"run {folder.name}", lambda folder=folder: run_line(folder))
    ]
    whole = sum(line.state == "ok" for line in found)
    if not found:
        yield Line("runs", "note", f"none in {runs_home()}", "catnet train makes one")
    else:
        yield Line("runs", "ok", f"{whole} of {len(found)} in {runs_home()} are whole")
    yield from (line for line in found if line.state != "ok")


def run_line(path: Path) -> Iterator[Line]:
    """How a folder of `$CATNET_RUNS` is; nothing of one that is no run and never was."""
    subject = f"run {path.name}"
    if not (path / SETTINGS).is_file():
        if any((path / mark).exists() for mark in MARKS):
            remedy = "bring the file back, or delete the folder"
            yield Line(subject, "problem", f"{path}: has no {SETTINGS}", remedy)
        return
    try:
        folder = open_run_folder(path)
    except UserError as error:
        yield Line(subject, "problem", str(error), "mend what is named, or delete the folder")
        return
    lost = lost_data(folder)
    if not folder.trained:
        yield unfinished(folder, subject, lost)
    elif lost:
        yield Line(subject, "problem", "orphaned: it cannot be evaluated", lost)
    else:
        yield Line(subject, "ok", "trained")


def lost_data(folder: RunFolder) -> str:
    """Why a run's data is no longer what it was trained on; empty where it is."""
    try:
        check_unchanged(folder, open_cases(folder.card), training=not folder.trained)
    except UserError as error:
        return str(error)
    return ""


def unfinished(folder: RunFolder, subject: str, lost: str) -> Line:
    """The line of a run whose training has not ended."""
    steps = [line["step"] for line in read_json_lines(folder.path / LOG)]
    what = f"unfinished, logged up to step {max(steps, default=0)} of {folder.run.train.steps}"
    if held(folder.path):
        return Line(subject, "ok", f"{what}, being trained now")
    if lost:
        return Line(subject, "problem", f"{what}, and cannot go on", lost)
    if faults := sorted(folder.replay.glob("fault-*")):
        remedy = f"`catnet replay {faults[-1]}` shows the step; lower train.rate in a new run"
        return Line(subject, "note", f"{what}, ended by a number that is none", remedy)
    again = "`catnet train` with the same file and settings"
    if not folder.begun:
        return Line(subject, "note", f"{what}, without a checkpoint", f"{again} begins anew")
    return Line(subject, "note", what, f"{again} goes on from the last checkpoint")
