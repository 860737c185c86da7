"""Bring raw scans to one orientation, spacing, window and size, as their card says.

Images are NIfTI, NRRD, MHA or folders of DICOM slices; labels are volumes, DICOM SEG, folders of
PNG masks, or one mask file an organ: the card says where. Each case becomes a folder of
memory-mapped arrays under $CATNET_DATA/CARD, with what is needed to put a prediction back onto the
scanner's grid. A case that is there already, from the same files by the same card, is left alone;
so an interrupted preparation goes on where it stopped. `catnet cards new DIR` writes a card.

example:
  catnet prepare chaos_t2 --raw ~/scans/chaos_t2
  catnet prepare totalsegmentator --raw ~/scans/Totalsegmentator_dataset --jobs 4 --keep-going
"""

import argparse
import sys
from pathlib import Path

from catnet.commands.phantom import at_least
from catnet.commands.progress import track
from catnet.data.card import load_card
from catnet.data.folds import shortage
from catnet.data.prepare import CasesFailedError, prepare
from catnet.data.store import Case, case_folder
from catnet.files import alone
from catnet.paths import data_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("card", metavar="CARD", help="a name in datasets/, or a card's path")
    parser.add_argument(
        "--raw", type=Path, required=True, metavar="DIR", help="folder of the raw scans"
    )
    parser.add_argument(
        "--jobs",
        type=at_least(1),
        default=1,
        metavar="N",
        help="cases at a time, each in a process of its own (default 1)",
    )
    parser.add_argument(
        "--keep-going",
        action="store_true",
        help="prepare the other cases where one is bad; list the bad ones at the end",
    )
    parser.add_argument(
        "--resample-labels",
        action="store_true",
        help="bring labels onto their image's grid by nearest neighbor where they are not on it",
    )


def run(options: argparse.Namespace) -> None:
    """Prepare every case."""
    card = load_card(options.card)
    folder = data_home() / card.name
    steps = prepare(
        card,
        options.raw,
        jobs=options.jobs,
        keep_going=options.keep_going,
        resample_labels=options.resample_labels,
    )
    done, made = 0, 0
    with alone(folder):
        try:
            for case, _, fresh in track(steps, "preparing"):
                done, made = done + 1, made + fresh
                for remark in Case(case_folder(card, case)).meta.remarks if fresh else ():
                    print(f"note: {remark}")
        except CasesFailedError as error:
            print(summary(done, made, folder))
            for sentence in error.failed.values():
                print(f"  {sentence}", file=sys.stderr)
            raise
    print(summary(done, made, folder))
    if few := shortage(card, done):
        print(f"note: {few}; add cases, or mend the card's folds")


def summary(done: int, made: int, folder: Path) -> str:
    """How many cases there are, and how many of them are new."""
    cases = "1 case" if done == 1 else f"{done} cases"
    return f"{cases} in {folder}, {made} of them prepared now"
