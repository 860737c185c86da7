"""Look at prepared cases before training: a picture of every case, and a table of what is odd.

The picture shows slices of each case from below, with its labels; the patient's right is on the
left. It goes to $CATNET_DATA/CARD/check.png, and with many cases to check-2.png and so on.

left-right  an organ lies on the wrong side of its partner (liver and spleen, the two kidneys)
missing     an organ of the card is not in the label
one slice   an organ is labelled in one slice only
spacing     the raw voxel size is far from the other cases'
extent      the raw field of view is far from the other cases'
clipped     more than half of an organ is at the end of the intensities
empty       hardly a voxel is above the lowest intensity, or a labelled slice is constant
duplicate   the image or the label is that of another case
damaged     the prepared files cannot be read

An anomaly is worth a look, and need not be wrong. The exit status is 0, and with --strict 1 where
there is any.

example:
  catnet check chaos_t2 -o chaos.png --strict
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catnet.check.anomalies import Finding, find_anomalies
from catnet.check.facts import Facts, examine
from catnet.check.sheet import Strip, draw_strip, save_sheets
from catnet.commands.progress import track
from catnet.data.card import Card, load_card
from catnet.data.store import Case, open_cases
from catnet.errors import UserError
from catnet.paths import data_home

Look = tuple[Facts | None, "ndarray | None", str]  # noqa: F821
SCREEN = 120  # columns where there is no terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("card", metavar="CARD", help="a name in datasets/, or a card's path")
    parser.add_argument(
        "-o", "--output", type=parse_picture, metavar="FILE.png", help="default: with the data"
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 on any anomaly")


def run(options: argparse.Namespace) -> None:
    """Look at every case, then print and draw."""
    card = load_card(options.card)
    damaged: dict[str, str] = {}
    cases = open_cases(card, damaged=damaged)
    looks: list[Look] = []
    for _ in track(look_at_all(card, cases, looks), "checking"):
        pass
    facts = [fact for fact, _, _ in looks if fact is not None]
    found = [
        *(
            Finding(case, "damaged", trouble, "prepare the case again")
            for case, trouble in sorted(damaged.items())
        ),
        *(
            Finding(case.folder.name, "damaged", trouble, "prepare the case again")
            for case, (_, _, trouble) in zip(cases, looks, strict=True)
            if trouble
        ),
        *find_anomalies(card, facts),
    ]
    strips = [
        Strip(title(fact, found), any(one.case == fact.case for one in found), picture)
        for fact, picture, _ in looks
        if fact is not None
    ]
    path = options.output or data_home() / card.name / "check.png"
    sheets = save_sheets(path, strips, organs=card.organs) if strips else []
    tell(found, count=len(cases) + len(damaged), sheets=sheets)
    if found and options.strict:
        sys.exit(1)


def look_at_all(
    card: Card, cases: tuple[Case, ...], looks: list[Look]
) -> Iterator[tuple[str, int, bool]]:
    """Fill `looks`, case by case; one that is damaged does not stop the others."""
    for case in cases:
        try:
            looks.append((examine(card, case), draw_strip(card, case), ""))
        except (UserError, ValueError) as error:  # of another shape than its description says
            looks.append((None, None, " ".join(str(error).split())))
        yield case.folder.name, len(cases), True


def parse_picture(text: str) -> Path:
    """A path that ends in .png; raises `UserError` for another one."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise UserError(f"-o {text}: the picture is a PNG; choose a name that ends in .png")
    return path


def title(facts: Facts, found: list[Finding]) -> str:
    """The name of a case, and the kinds of its findings."""
    kinds = dict.fromkeys(one.kind for one in found if one.case == facts.case)
    return f"case {facts.case}" + (f": {', '.join(kinds)}" if kinds else "")


def tell(found: list[Finding], *, count: int, sheets: list[Path]) -> None:
    """The table, and where the picture is."""
    if found:
        table = Table("case", "anomaly", "what", "what to do", box=box.SIMPLE_HEAD)
        for one in found:
            table.add_row(*map(escape, (one.case, one.kind, one.what, one.remedy)))
        width = None if sys.stdout.isatty() else SCREEN
        Console(width=width).print(table)
    odd = len({one.case for one in found})
    cases = "1 case" if count == 1 else f"{count} cases"
    print(f"{cases}, {odd} of them with anomalies" if odd else f"{cases}, none is odd")
    for path in sheets:
        print(f"picture: {path}")
