"""Turn evaluated runs into a page, tables and plots that can be shown around.

SWEEP is the folder that `catnet sweep` printed, or its name; RUN the folder of a run, or its name.
Runs that differ in a setting are its variants; fold and seed are repeats. The folder DIR gets
index.html (opens from disk, needs no network), the tables as Markdown, CSV and LaTeX, the plots as
SVG, and all rows. Runs that may not stand in one table are refused.

example:
  catnet report rounds-0123456789 -o ~/rounds
"""

import argparse
import shlex
from pathlib import Path

from catnet.commands.settings import add_settings, part_settings
from catnet.errors import UserError
from catnet.paths import runs_home
from catnet.report.study import Study, study_of_runs
from catnet.runs import open_run_folder
from catnet.sweep.store import SWEEP, open_sweep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("runs", nargs="+", metavar="SWEEP|RUN", help="what to report on")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="default: `report` in the first of them"
    )
    add_settings(parser, group="evaluate.")


def run(options: argparse.Namespace) -> None:
    """Write the report, and say where."""
    from catnet.report.document import write_report  # late: it loads what draws

    names, settings = part_settings(options.runs, options.settings, what="sweep or run")
    folder = options.output or find(names[0]) / "report"
    place = ["-o", str(options.output)] if options.output else []
    command = shlex.join(["catnet", "report", *names, *settings, *place])
    page = write_report(open_study(names, settings), folder, command=command)
    print(f"report: {page}")


def find(name: str) -> Path:
    """The folder of a sweep or of a run, by its path or its name."""
    places = (Path(name), runs_home() / "sweeps" / name, runs_home() / name)
    for path in places:
        if path.is_dir():
            return path
    raise UserError(
        f"{name}: no such folder, nor a sweep or a run of that name in {runs_home()}; give what "
        "`catnet sweep` or `catnet train` printed"
    )


def open_study(names: list[str], settings: list[str]) -> Study:
    """A sweep, or some runs; raises `UserError` for a mixture."""
    folders = [find(name) for name in names]
    sweeps = [path for path in folders if (path / SWEEP).is_file()]
    if not sweeps:
        return study_of_runs([open_run_folder(path, overrides=settings) for path in folders])
    if len(folders) > 1:
        raise UserError(f"{sweeps[0]} is a sweep, and a sweep is reported on alone; give it only")
    if settings:
        raise UserError(
            f"{sweeps[0]}: a sweep has its own evaluate settings; give {' '.join(settings)} to "
            "`catnet sweep`"
        )
    return open_sweep(sweeps[0])
