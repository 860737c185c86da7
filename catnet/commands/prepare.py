"""Bring raw scans to one orientation, spacing, window and size, as their card says.

Each case becomes a folder of memory-mapped arrays under $CATNET_DATA/CARD, with what is needed to
put a prediction back onto the scanner's grid. A case that is there already, from the same files by
the same card, is left alone; so an interrupted preparation goes on where it stopped.

example:
  catnet prepare chaos_t2 --raw ~/scans/chaos_t2
"""

import argparse
from pathlib import Path

from catnet.commands.progress import track
from catnet.data.card import load_card
from catnet.data.prepare import prepare
from catnet.files import alone
from catnet.paths import data_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("card", metavar="CARD", help="a name in datasets/, or a card's path")
    parser.add_argument(
        "--raw", type=Path, required=True, metavar="DIR", help="folder of the raw scans"
    )


def run(options: argparse.Namespace) -> None:
    """Prepare every case."""
    card = load_card(options.card)
    with alone(data_home() / card.name):
        fresh = [fresh for _, _, fresh in track(prepare(card, options.raw), "preparing")]
    print(f"{len(fresh)} cases in {data_home() / card.name}, {sum(fresh)} of them prepared now")
