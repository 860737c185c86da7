"""Cut every prepared case into 3D supervoxels, the pseudo-labels of self-supervised training.

No organ label is read. `--purity` prints how well the best single supervoxel of a case already
matches each organ, averaged over the cases: how much of the answer the pseudo-labels give away.

example:
  catnet supervoxels chaos_t2 --purity
"""

import argparse

from catnet.commands.progress import track
from catnet.data.card import load_card
from catnet.data.pseudolabels import add_supervoxels, mean_purity
from catnet.data.store import open_cases
from catnet.files import alone
from catnet.paths import data_home


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("card", metavar="CARD", help="a name in datasets/, or a card's path")
    parser.add_argument(
        "--purity", action="store_true", help="print the best supervoxel's Dice per organ"
    )


def run(options: argparse.Namespace) -> None:
    """Cut every case that has no supervoxels of these settings yet."""
    card = load_card(options.card)
    cases = open_cases(card)
    with alone(data_home() / card.name):
        fresh = [fresh for _, _, fresh in track(add_supervoxels(card, cases), "supervoxels")]
    print(f"{len(fresh)} cases with supervoxels, {sum(fresh)} of them cut now")
    if options.purity:
        for organ, dice in mean_purity(card, cases).items():
            print(f"  {organ:<16} best supervoxel: Dice {100 * dice:.1f} %")
