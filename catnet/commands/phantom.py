"""Write synthetic abdomens with four labelled organs, in the form that a phantom card reads.

The same seed always gives the same scans; files that are there already are left alone. They are
for trying everything without a download: a Dice on them says nothing about patients.

example:
  catnet phantom phantom_mr --raw ~/catnet/raw/phantom_mr --cases 10
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from catnet.data.card import load_card
from catnet.data.folds import shortage
from catnet.data.phantom import write_phantoms


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("card", metavar="CARD", help="phantom_mr, phantom_ct, or a card's path")
    parser.add_argument(
        "--raw", type=Path, required=True, metavar="DIR", help="folder to write image_N.nii.gz to"
    )
    parser.add_argument(
        "--cases", type=at_least(1), default=10, metavar="N", help="how many (default 10)"
    )
    parser.add_argument(
        "--seed", type=at_least(0), default=0, metavar="S", help="which ones (default 0)"
    )


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number that is not under `least`."""

    def integer(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is under {least}")
        return int(text)

    return integer


def run(options: argparse.Namespace) -> None:
    """Write the phantoms."""
    card = load_card(options.card)
    write_phantoms(options.raw, modality=card.modality, cases=options.cases, seed=options.seed)
    phantoms = "1 phantom" if options.cases == 1 else f"{options.cases} phantoms"
    print(f"{phantoms} in {options.raw}")
    if few := shortage(card, options.cases):
        print(f"note: {few}; give more --cases, or mend the card's folds")
