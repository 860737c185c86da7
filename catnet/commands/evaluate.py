"""Evaluate trained runs beside their baselines, and print Dice per organ.

RUN is a folder that `catnet train` printed, or its name. EP1 cuts the query to the slices that show
the organ and uses three support slices; EP2 segments the whole volume from one. Tidy rows (CSV),
labels on the scanner's grid (NIfTI) and pictures go to the run's folder `evaluations`; what is
there already is not computed again. Several runs, such as the folds of one question, make one
table over all their cases.

example:
  catnet evaluate baseline-0123456789 evaluate.support=each
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.console import Console

from catnet.commands.progress import progress_bar
from catnet.commands.settings import add_settings, part_settings
from catnet.engine import choose_device, set_up_cpu
from catnet.errors import UserError
from catnet.evaluate.run import evaluate
from catnet.evaluations import Evaluation, finished_evaluation
from catnet.files import alone
from catnet.report.tables import summarize, terminal_table
from catnet.runs import RunFolder, open_run_folder

STOPPED = (
    "runs that are finished are kept, and the same command evaluates the one at hand from its "
    "beginning"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of trained runs")
    parser.add_argument("--again", action="store_true", help="compute what is there already, too")
    parser.add_argument(
        "--beat-copy",
        type=float,
        metavar="POINTS",
        help="fail unless mean Dice is this many points above copying, under every protocol",
    )
    add_settings(parser, group="evaluate.")


def run(options: argparse.Namespace) -> None:
    """Evaluate, then print the table."""
    names, settings = part_settings(options.runs, options.settings, what="run")
    folders = [open_run_folder(Path(name), overrides=settings) for name in names]
    title = check_comparable(folders)
    evaluations = [evaluate_one(folder, again=options.again) for folder in folders]
    rows = pd.concat([evaluation.rows for evaluation in evaluations])
    Console(soft_wrap=True).print(terminal_table(rows, title=title))
    for evaluation in evaluations:
        print(f"rows, predictions and pictures: {evaluation.path}")
    for remark in remarks(rows):
        print(remark)
    if options.beat_copy is not None:
        demand_margin(rows, model=folders[0].run.model.name, points=options.beat_copy)


def check_comparable(folders: list[RunFolder]) -> str:
    """The table's title; raises `UserError` for runs whose cases say nothing about each other."""
    first = folders[0]
    if len({folder.path for folder in folders}) < len(folders):
        raise UserError("a run is named twice, and its cases would count twice; name it once")
    if any(question(folder) != question(first) for folder in folders):
        raise UserError(
            "the runs differ in more than fold and seed, and one line of a table cannot stand for "
            "both; evaluate them one by one"
        )
    folds = ", ".join(str(folder.run.data.fold) for folder in folders)
    kind = "folds" if len(folders) > 1 else "fold"
    return f"{first.card.name}, {kind} {folds}, setting {first.run.data.setting}"


def question(folder: RunFolder) -> tuple[str, str]:
    """What two runs share that answer one question in different folds, or by different seeds."""
    run = folder.run
    data = run.data.model_copy(update={"fold": 0})
    same = run.model_copy(update={"data": data, "seed": 0})
    return same.identity(folder.card.identity()), run.evaluate.name()


def evaluate_one(folder: RunFolder, *, again: bool, patience: float = 0.0) -> Evaluation:
    """The evaluation of one run, computed where it is not there yet.

    Waits `patience` seconds for a process that is at work on the run.
    """
    done = None if again else finished_evaluation(folder)
    if done is not None:
        return done
    set_up_cpu(folder.run.machine)
    with (
        alone(folder.path, patience=patience),
        progress_bar("evaluating", "{task.fields[query]}") as bar,
    ):
        done = None if again else finished_evaluation(folder)
        if done is not None:  # by the process that was waited for
            return done
        task = bar.add_task("", total=None, query="")
        return evaluate(
            folder,
            device=choose_device(folder.run.machine),
            report=lambda done, total, query: bar.update(
                task, completed=done, total=total, query=f"case {query}" if query else ""
            ),
        )


def remarks(rows: pd.DataFrame) -> Iterator[str]:
    """What a column of zeros means."""
    dice = rows[rows["metric"] == "dice"]
    for (protocol, model), best in dice.groupby(["protocol", "model"])["value"].max().items():
        if best == 0:
            yield f"note: under {protocol} no mask of {model} meets its organ; train longer"


def demand_margin(rows: pd.DataFrame, *, model: str, points: float) -> None:
    """Raise `UserError` where the network `model` is not `points` above the copy baseline."""
    means = summarize(rows)["mean", "mean"].unstack("model")
    if "copy" not in means:
        raise UserError("--beat-copy needs the baseline: evaluate.baselines=[copy]")
    margins = means[model] - means["copy"]
    worst = margins.idxmin()
    if not margins[worst] >= points:
        raise UserError(
            f"{worst}: mean Dice {means[model][worst]:.1f} is {margins[worst]:+.1f} points from "
            f"copying ({means['copy'][worst]:.1f}), and {points:g} were demanded; train longer"
        )
