"""Write a card for a folder of scans, from what is seen there.

Known are nnU-Net v2's raw folders, the Medical Segmentation Decathlon, TotalSegmentator, and any
folder whose images and labels pair up by a part of their names: volumes, DICOM folders, PNG masks.
The card can be used as it is; comments say what was seen (orientation, spacing, intensities, label
numbers) and mark what could not be known, such as the license.

example:
  catnet cards new ~/scans/mine
  catnet cards new ~/scans/Task09_Spleen --name spleen
"""

import argparse
import re
from pathlib import Path

from catnet.commands.phantom import at_least
from catnet.commands.progress import track
from catnet.data.propose import Proposal
from catnet.errors import UserError
from catnet.files import write_text
from catnet.paths import cards_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("action", choices=["new"], metavar="new", help="propose a card")
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the raw scans")
    parser.add_argument("--name", metavar="NAME", help="of the card (default: as the folder)")
    parser.add_argument(
        "--cases",
        type=at_least(1),
        default=20,
        metavar="N",
        help="images to look at (default 20)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE.yml",
        help="file to write (default: NAME.yml in the folder of cards)",
    )


def run(options: argparse.Namespace) -> None:
    """Propose a card."""
    name = options.name or re.sub(r"[^a-z0-9_-]+", "_", options.folder.resolve().name.lower())
    if not re.fullmatch(r"[a-z0-9_-]+", name):
        raise UserError(f"--name {name!r}: a card's name is small letters, digits, _ and -")
    path = options.output or cards_home() / f"{name}.yml"
    if path.exists():
        raise UserError(f"{path}: is there already; give another --name or --output")
    draft = Proposal(options.folder, name=name)
    for _ in track(draft.look_at(options.cases), "looking at"):
        pass
    text = draft.write()
    write_text(path, text)
    print(f"{path}\n\n{text}\nnext: catnet prepare {path} --raw {options.folder}")
