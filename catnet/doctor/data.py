"""Cards that do not load, prepared cases that are stale or damaged."""

from collections.abc import Iterator
from pathlib import Path

from catnet.data.card import Card, load_card
from catnet.data.folds import shortage
from catnet.data.pseudolabels import has_supervoxels
from catnet.data.store import META, Case, prepared_cases
from catnet.doctor.line import Line
from catnet.errors import UserError
from catnet.paths import cards_home, data_home

SHOWN = 5  # cases that are named


def cards() -> Iterator[Line]:
    """One line for the cards that load, and one for each that does not."""
    home = cards_home()
    paths = sorted(home.glob("*.yml"))
    if not paths:
        remedy = "call catnet where datasets/ lies, or set CATNET_CARDS to the folder of cards"
        yield Line("cards", "note", f"no card in {home}", remedy)
        return
    wrong = []
    for path in paths:
        try:
            load_card(str(path))
        except UserError as error:
            wrong.append(Line(f"card {path.stem}", "problem", str(error), "mend the card"))
    yield Line("cards", "ok", f"{len(paths) - len(wrong)} of {len(paths)} in {home} load")
    yield from wrong


def prepared() -> Iterator[Line]:
    """A line for every folder of prepared cases."""
    known = {card.name: card for card in loadable()}
    folders = sorted(path for path in data_home().glob("[!.]*") if path.is_dir())
    if not folders:
        remedy = "catnet phantom and catnet prepare make some"
        yield Line("data", "note", f"nothing is prepared in {data_home()}", remedy)
    for folder in folders:
        if folder.name in known:
            yield from data_of(known[folder.name], folder)
        elif any(folder.glob(f"[!.]*/{META}")):
            what = f"{folder}: no card in {cards_home()} has this name; it was not looked at"
            remedy = "set CATNET_CARDS to the folder of its card, or give commands the card's path"
            yield Line(f"data {folder.name}", "note", what, remedy)


def loadable() -> Iterator[Card]:
    """The cards that load."""
    for path in sorted(cards_home().glob("*.yml")):
        try:
            yield load_card(str(path))
        except UserError:
            continue


def data_of(card: Card, folder: Path) -> Iterator[Line]:
    """What is wrong with the prepared cases of a card, or that nothing is."""
    subject = f"data {card.name}"
    again = f"catnet prepare {card.name} --raw DIR"
    cases = prepared_cases(card)
    damaged = [case.folder.name for case in cases if is_damaged(case)]
    whole = [case for case in cases if case.folder.name not in damaged]
    stale = [case.name for case in whole if case.meta.preparation != card.preparation()]
    ready = [case for case in whole if case.name not in stale]
    cut = [case for case in ready if has_supervoxels(case, card)]
    if damaged:
        what = f"damaged: {listing(damaged)} of {len(cases)} cases"
        yield Line(subject, "problem", what, f"delete them, and {again}")
    if stale:
        what = f"stale: {listing(stale)} of {len(cases)} cases, by another version of the card"
        yield Line(subject, "problem", what, again)
    if ready:
        count = "1 case is" if len(ready) == 1 else f"{len(ready)} cases are"
        what = f"{count} ready, {len(cut)} with supervoxels"
        yield Line(subject, "ok", what)
        if few := shortage(card, len(cases)):
            yield Line(subject, "note", few, "prepare more cases, or mend the card's folds")
        if len(cut) < len(ready):
            what = f"{len(ready) - len(cut)} of {len(ready)} cases have no supervoxels of this card"
            yield Line(subject, "note", what, f"catnet supervoxels {card.name}")
    left = [path.name for path in folder.glob(".*-*") if path.is_dir()]
    if left:
        what = f"{len(left)} unfinished folders in {folder}: {listing(left)}"
        yield Line(subject, "note", what, "delete them unless something is being prepared now")


def is_damaged(case: Case) -> bool:
    """Whether a case's description or arrays cannot be read, or do not fit each other."""
    try:
        return {case.image.shape, case.label.shape} != {case.meta.shape}
    except UserError:
        return True


def listing(names: list[str]) -> str:
    """The first few names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
