"""How much every round of trained runs still changes the query feature.

Linear CKA (Kornblith et al., ICML 2019, arXiv 1905.00414) compares the query feature after every
round of CMAT with that after the last one, over the query slices of the run's fold, each organ, as
EP1 pairs them: 1 means that they differ by a turn and a scale at most. Round 0 is what MIFE gives,
before a position is added. Prints a table, and in one sentence whether the last round still changes
anything; writes similarity.csv (a line for every slice, organ and round) and the curves as
similarity.svg and similarity.png.

Runs are named by the mechanisms at the self place / at the cross place, and by what else differs
among those that are given. Runs that differ in fold and seed alone repeat one another: one curve.

example:
  catnet similarity rounds-0123456789 attention-0123456789 -o ~/similarity
"""

import argparse
from pathlib import Path

import pandas as pd
from rich.console import Console

from catnet.commands.output import try_file
from catnet.commands.progress import progress_bar
from catnet.engine import choose_device, set_up_cpu
from catnet.evaluate.similarity import group_names, measure_similarity
from catnet.report.similarity import similarity_table, verdict, write_similarity
from catnet.runs import RunFolder, open_run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of trained runs")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="folder to write to (default: `similarity` in the first run's folder)",
    )


def run(options: argparse.Namespace) -> None:
    """Compare the rounds of every run, then print and write."""
    folders = [open_run_folder(path, overrides=["evaluate.baselines=[]"]) for path in options.runs]
    folders = list({folder.path.resolve(): folder for folder in folders}.values())
    target = options.output or folders[0].path / "similarity"
    try_file(target / "similarity.csv")
    names = group_names([folder.run for folder in folders])
    rows = pd.concat(
        [measure(folder).assign(group=name) for folder, name in zip(folders, names, strict=True)],
        ignore_index=True,
    )
    Console(soft_wrap=True).print(similarity_table(rows))
    print(verdict(rows))
    write_similarity(target, rows)
    print(f"table and curves: {target}")


def measure(folder: RunFolder) -> pd.DataFrame:
    """The rows of one run, with a progress bar."""
    set_up_cpu(folder.run.machine)
    with progress_bar(folder.path.name, "{task.fields[query]}") as bar:
        task = bar.add_task("", total=None, query="")
        return measure_similarity(
            folder,
            device=choose_device(folder.run.machine),
            report=lambda done, total, query: bar.update(
                task, completed=done, total=total, query=f"case {query}" if query else ""
            ),
        )
