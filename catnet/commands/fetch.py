"""Download the raw scans of a card, where their license allows that without an account.

The card's `fetch` says where they are and what their checksum is; what does not agree with it is
thrown away. A transfer that broke off goes on where it stopped when the same command is given
again. For the other data sets this says where to get them.

example:
  catnet fetch chaos_mr_raw --raw ~/scans/chaos
  catnet prepare chaos_mr_raw --raw ~/scans/chaos
"""

import argparse
from pathlib import Path

from catnet.commands.progress import download_bar
from catnet.data.card import load_card
from catnet.files import alone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("card", metavar="CARD", help="a name in datasets/, or a card's path")
    parser.add_argument(
        "--raw", type=Path, required=True, metavar="DIR", help="folder to unpack the scans into"
    )


def run(options: argparse.Namespace) -> None:
    """Download and unpack."""
    from catnet.data.fetch import fetch

    card = load_card(options.card)
    # the user's folder: fetch clears what it made itself
    with alone(options.raw, clear=leave), download_bar() as watch:
        fresh = fetch(card, options.raw, watch=watch)
    print(f"{card.title}: {'fetched into' if fresh else 'is already in'} {options.raw}")
    print(f"license: {card.license}")


def leave(folder: Path) -> None:
    """Take nothing away."""
