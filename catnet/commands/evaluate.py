"""Evaluate a trained run beside its baselines, and print Dice per organ.

RUN is the folder that `catnet train` printed, or its name. EP1 cuts the query to the slices that
show the organ and uses three support slices; EP2 segments the whole volume from one. Tidy rows
(CSV), labels on the scanner's grid (NIfTI) and pictures go to the run's folder `evaluations`.

example:
  catnet evaluate baseline-0123456789 evaluate.support=each
"""

import argparse
from pathlib import Path

import pandas as pd
from rich.console import Console

from catnet.commands.progress import progress_bar
from catnet.commands.settings import add_settings
from catnet.engine import choose_device
from catnet.errors import UserError
from catnet.evaluate.run import TRAINED, evaluate
from catnet.report.tables import summarize, terminal_table
from catnet.runs import open_run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained run")
    parser.add_argument(
        "--beat-copy",
        type=float,
        metavar="POINTS",
        help="fail unless mean Dice is this many points above copying, under every protocol",
    )
    add_settings(parser, group="evaluate.")


def run(options: argparse.Namespace) -> None:
    """Evaluate, then print the table."""
    folder = open_run_folder(options.run, overrides=options.settings)
    with progress_bar("evaluating", "{task.fields[query]}") as bar:
        task = bar.add_task("", total=None, query="")
        evaluation = evaluate(
            folder,
            device=choose_device(folder.run.machine),
            report=lambda done, total, query: bar.update(
                task, completed=done, total=total, query=f"case {query}" if query else ""
            ),
        )
    data = folder.run.data
    title = f"{folder.card.name}, fold {data.fold}, setting {data.setting}"
    Console(soft_wrap=True).print(terminal_table(evaluation.rows, title=title))
    print(f"rows, predictions and pictures: {evaluation.path}")
    if options.beat_copy is not None:
        demand_margin(evaluation.rows, points=options.beat_copy)


def demand_margin(rows: pd.DataFrame, *, points: float) -> None:
    """Raise `UserError` where the trained network is not `points` above the copy baseline."""
    means = summarize(rows)["mean", "mean"].unstack("model")
    if "copy" not in means:
        raise UserError("--beat-copy needs the baseline: evaluate.baselines=[copy]")
    margins = means[TRAINED] - means["copy"]
    worst = margins.idxmin()
    if not margins[worst] >= points:
        raise UserError(
            f"{worst}: mean Dice {means[TRAINED][worst]:.1f} is {margins[worst]:+.1f} points from "
            f"copying ({means['copy'][worst]:.1f}), and {points:g} were demanded; train longer"
        )
