"""Segment whole scans like a labelled one, and write the masks on the scans' own grids.

A support is an image and its label; several supports are several shots. Every organ of the labels
is segmented, or those that --organ names by their numbers there. Queries may have any size,
orientation and spacing; nothing is known of where the organ lies in them (EP2): every slice is
compared with the organ's middle slice in each support.

--model is a trained run, a folder that `catnet export` wrote (here, or hf://OWNER/NAME), or `copy`,
the control that needs no training: it puts the support's mask on every slice. A run has its card,
which says how scans are prepared; `copy` prepares them by --card, or as the first support is.

DIR gets QUERY_pred.nii.gz (the organs' numbers), summary.json and summary.csv (volume, slices, and
as confidence the mean probability inside of the mask, which is not the chance of being right). What
is there already is refused without --again. Warnings say where a query looks unlike the supports.

example:
  catnet predict --model run-0123456789 --support a.nii.gz a_label.nii.gz --query b.nii.gz -o b
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from catnet.commands.progress import progress_bar
from catnet.errors import UserError
from catnet.files import LOCK
from catnet.predict.plan import plan_queries
from catnet.predict.run import Outcome, predict
from catnet.predict.session import Request

STOPPED = "finished queries stand in the summary; leave them out next time, or give --again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "--model", required=True, metavar="RUN|DIR|copy", help="what segments: see above"
    )
    parser.add_argument(
        "--support",
        nargs=2,
        type=Path,
        action="append",
        required=True,
        metavar=("IMAGE", "LABEL"),
        help="a labelled scan; give --support several times for several shots",
    )
    parser.add_argument(
        "--organ",
        nargs="+",
        action="extend",
        default=[],
        type=parse_organ,
        metavar="N[=NAME]",
        help="numbers in the supports' labels; default: all of them",
    )
    parser.add_argument(
        "--query", nargs="+", type=Path, action="extend", required=True, metavar="IMAGE",
        help="scans to segment, a file or a folder of DICOM slices each",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="folder of the results"
    )
    parser.add_argument("--card", metavar="CARD", help="with `copy`: how scans are prepared")
    parser.add_argument(
        "--probability", action="store_true", help="write each organ's probability, too"
    )
    parser.add_argument(
        "--dicom-seg", action="store_true", help="write DICOM SEG, too; queries must be DICOM"
    )
    parser.add_argument(
        "--resample-labels",
        action="store_true",
        help="bring a support's label onto its image's grid by nearest neighbor",
    )
    parser.add_argument("--again", action="store_true", help="write what is there already anew")
    parser.add_argument(
        "--keep-going", action="store_true", help="a query that fails does not stop the others"
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "auto"), default="auto", help="default: auto"
    )
    parser.add_argument(
        "--jobs", type=parse_jobs, default=1, metavar="N", help="queries at a time; default: 1"
    )


def parse_organ(text: str) -> tuple[int, str | None]:
    """`3` or `3=spleen`."""
    number, equals, name = text.partition("=")
    if not number.isdecimal() or not 1 <= int(number) <= 65535 or (equals and not name.strip()):
        raise argparse.ArgumentTypeError(f"{text!r} is no label number from 1, such as 3=spleen")
    return int(number), name.strip() or None


def parse_jobs(text: str) -> int:
    """A number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes from 1")
    return int(text)


def run(options: argparse.Namespace) -> None:
    """Segment, print the table and the warnings."""
    wanted = plan_queries(
        options.query,
        options.output,
        supports=[path for pair in options.support for path in pair],
        probability=options.probability,
        dicom_seg=options.dicom_seg,
        again=options.again,
    )
    request = Request(
        options.model,
        tuple((image, label) for image, label in options.support),
        organs=tuple(options.organ),
        card=options.card,
        accelerator=options.device,
        resample_labels=options.resample_labels,
    )
    with (
        leaving_nothing(options.output),
        progress_bar("predicting", "{task.fields[query]}") as bar,
    ):
        task = bar.add_task("", total=None, query="")
        outcomes = list(
            predict(
                request,
                wanted,
                jobs=options.jobs,
                keep_going=options.keep_going,
                watch=lambda name, done, total: bar.update(
                    task, completed=done, total=total, query=name
                ),
            )
        )
    names = [one.target.name for one in wanted]
    outcomes.sort(key=lambda outcome: names.index(outcome.name))
    show(outcomes)
    print(f"labels and summary: {options.output}")
    failed = [outcome for outcome in outcomes if outcome.record is None]
    if failed:
        raise UserError(f"{len(failed)} of {len(outcomes)} queries were left out, see above")


@contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Around work that makes `folder`: where it is refused, no empty folder is left."""
    there = folder.exists()
    try:
        yield
    except UserError:
        if not there and folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK}:
            shutil.rmtree(folder)
        raise


def show(outcomes: list[Outcome]) -> None:
    """A line an organ; warnings and failures on standard error."""
    table = Table("query", "organ", "volume ml", "confidence", "slices")
    for outcome in outcomes:
        for organ in outcome.record["organs"] if outcome.record else ():
            sure = organ["confidence"]
            cells = (f"{organ['volume_ml']:.1f}", "-" if sure is None else f"{sure:.2f}")
            table.add_row(outcome.name, organ["name"], *cells, str(organ["slices"]))
    if table.row_count:
        Console(soft_wrap=True).print(table, markup=False)
    for outcome in outcomes:
        for sentence in outcome.record["warnings"] if outcome.record else ():
            print(f"warning: {outcome.name}: {sentence}", file=sys.stderr)
        if outcome.problem:
            print(f"failed: {outcome.problem}", file=sys.stderr)
