"""Write a page that shows a scan with its masks: three planes, opacity, layers, in any browser.

RUN         the folder of a trained run: a case of its fold is segmented once more, and the page has
            the mask of every round as a layer, the truth, and the support beside it
PREDICTION  the folder that `catnet predict` wrote: a query with its mask, the support beside it
IMAGE LABEL ...
            a scan and one label volume or several, each of them a layer

The page is one file that holds the volumes and opens from disk without a network. Scans that are
large are thinned out to 16 million voxels. Whoever has the page has the scan: share it as you would
share the scan itself.

example:
  catnet view baseline-0123456789 --case 3 -o case3.html
  catnet view scan.nii.gz label.nii.gz other_label.nii.gz -o scan.html
"""

import argparse
import sys
from pathlib import Path

from catnet.errors import UserError
from catnet.files import write_text
from catnet.paths import runs_home
from catnet.runs import SETTINGS, open_run_folder
from catnet.view.files import SUMMARY, Pair, stem, view_files, view_prediction
from catnet.view.page import Page, render


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "what", nargs="+", type=Path, metavar="RUN|PREDICTION|IMAGE LABEL", help="what to show"
    )
    parser.add_argument(
        "-o", "--output", type=parse_page, metavar="FILE.html", help="default: beside what is shown"
    )
    parser.add_argument("--case", metavar="NAME", help="the query (default: the first one)")
    parser.add_argument("--support", metavar="NAME", help="default: the query's own support")
    parser.add_argument("--organ", metavar="NAME", help="show this one alone")


def run(options: argparse.Namespace) -> None:
    """Make the page and write it."""
    page, place = make_page(options)
    path = options.output or place
    text = render(page)
    write_text(path, text)
    for sentence in page.warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    print(f"{page.title}\npage: {path} ({len(text) / 1e6:.1f} MB)")


def parse_page(text: str) -> Path:
    """A path that ends in .html; raises `UserError` for another one."""
    path = Path(text)
    if path.suffix.lower() != ".html":
        raise UserError(f"-o {text}: the page is HTML; choose a name that ends in .html")
    return path


def make_page(options: argparse.Namespace) -> tuple[Page, Path]:
    """The page, and where it goes unless told otherwise."""
    first = options.what[0]
    names = {"case": options.case, "support": options.support, "organ": options.organ}
    if len(options.what) > 1:
        for option in ("case", "support"):
            if names[option] is not None:
                raise UserError(f"--{option} belongs to a run or a prediction; leave it out here")
        page = view_files(Pair(first, tuple(options.what[1:])), names={}, organ=options.organ)
        return page, options.what[1].parent / f"{stem(options.what[1])}.html"
    if not (first.exists() or (runs_home() / first).exists()):
        raise UserError(
            f"{first}: no such file or folder; give a run, a folder that `catnet predict` wrote, "
            "or IMAGE LABEL"
        )
    if first.is_file():
        raise UserError(f"{first}: a scan alone has no mask; give its label too: IMAGE LABEL")
    if (first / SUMMARY).is_file() and not (first / SETTINGS).is_file():
        return view_prediction(first, **names), first / "view.html"
    return make_run_page(first, names)


def make_run_page(path: Path, names: dict[str, str | None]) -> tuple[Page, Path]:
    """The page of a run; torch is loaded here, which files do not need."""
    from catnet.engine import choose_device, set_up_cpu
    from catnet.view.run import view_run

    folder = open_run_folder(path, overrides=["evaluate.baselines=[]"])
    set_up_cpu(folder.run.machine)
    page = view_run(folder, **names, device=choose_device(folder.run.machine))
    name = page.title.rpartition(": ")[2].replace(" ", "-")
    return page, folder.path / "view" / f"{name}.html"
