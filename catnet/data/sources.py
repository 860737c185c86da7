"""The raw files of a card: which image belongs to which label, and what they hold."""

import hashlib
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from catnet.data.card import Card
from catnet.data.companions import companions
from catnet.data.labels import label_files
from catnet.data.store import natural
from catnet.errors import UserError
from catnet.files import file_hash


def raw_cases(card: Card, raw: Path) -> dict[str, tuple[Path, Path]]:
    """Image and label of every case in `raw`, by name; raises `UserError` where none pair up.

    A label whose organs have files of their own keeps {organ} in its path.
    """
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder of the raw scans with --raw")
    before, after = (re.escape(part) for part in card.image.split("{case}"))
    pattern = re.compile(f"{before}(?P<case>[^/.][^/]*){after}")
    pairs = {}
    for path in sorted(raw.glob(escape(card.image).replace("{case}", "*"))):
        found = pattern.fullmatch(path.relative_to(raw).as_posix())
        label = raw / card.label.replace("{case}", found["case"]) if found else None
        wanted = found and (card.cases is None or fnmatchcase(found["case"], card.cases))
        if wanted and label != path and not is_label(card, path.relative_to(raw).as_posix()):
            pairs[found["case"]] = (path, label)
    if not pairs:
        raise UserError(f"{raw}: no file named like {card.image}; check --raw and the card's image")
    for image, _ in pairs.values():
        whole = str(image).encode(errors="replace").decode() == str(image)
        if not whole or not str(image.relative_to(raw)).isprintable():
            raise UserError(f"{str(image)!r}: a name with unreadable letters; rename the file")
    if "{organ}" in str(raw) and "{organ}" in card.label:
        raise UserError(
            f"{raw}: holds the word {{organ}}, which a card fills in; rename the folder"
        )
    check_organs(card, raw, [label for _, label in pairs.values()])
    return dict(sorted(pairs.items(), key=lambda item: natural(item[0])))


def is_label(card: Card, name: str) -> bool:
    """Whether a file that the image pattern matches is one that the label pattern means."""
    before, after = card.label.split("{case}")
    image_before, image_after = card.image.split("{case}")
    longer = len(before) + len(after) > len(image_before) + len(image_after)
    return longer and name.startswith(before) and name.endswith(after)


def check_organs(card: Card, raw: Path, labels: Iterable[Path]) -> None:
    """Raise `UserError` for an organ that has no mask in any case, which is a typing mistake."""
    if "{organ}" not in card.label:
        return
    shown = set().union(*(label_files(card, label) for label in labels))
    missing = [organ for organ in card.organs if organ not in shown]
    if shown and missing:
        raise UserError(
            f"{raw}: no case has a mask of {missing[0]!r} named like {card.label}; say in "
            "label_values how its file is called"
        )


def check_label(card: Card, image: Path, label: Path) -> None:
    """Raise `UserError` where the label of an image is not there."""
    if not label_files(card, label):
        raise UserError(f"{image}: its label {label} is not there; add it or mend the card")


def source_hash(paths: Iterable[Path]) -> str:
    """SHA-256 of files and folders: of a single file its contents, else names and contents.

    Where a file is only a header, the files of its voxels count, too.
    """
    given = [one for path in paths for one in (path, *companions(path))]
    if len(given) == 1 and not given[0].is_dir():
        return file_hash(given[0])
    total = hashlib.sha256()
    for path in given:
        files = sorted(path.rglob("[!.]*")) if path.is_dir() else [path]
        for file in (file for file in files if file.is_file()):
            name = file.relative_to(path).as_posix() if path.is_dir() else file.name
            total.update(f"{name}\0{file_hash(file)}\0".encode())
    return total.hexdigest()
