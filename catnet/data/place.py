"""Unpacked files moved into place, so that a move that was cut off can be finished.

Before the first entry moves, a journal beside the temporary folder says what there is to move.
"""

import json
import os
import shutil
from pathlib import Path

from catnet.errors import UserError
from catnet.files import write_text

LEFTOVER = ".catnet-unpack"


def temporary_of(folder: Path, *, mark: str) -> Path:
    """Where an archive is unpacked that is to move into `folder`; `mark` tells it from others."""
    return folder / f"{LEFTOVER}-{mark}"


def journal_of(temporary: Path) -> Path:
    """The names of all that is to be moved; there is one once a move has begun."""
    return temporary.with_name(f"{temporary.name}.json")


def read_names(path: Path) -> list[str]:
    """The names in a journal; none where it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def has_begun(temporary: Path) -> bool:
    """Whether a move was cut off, and nothing of it was taken away since."""
    places = (temporary, temporary.parent)
    names = read_names(journal_of(temporary))
    return bool(names) and all(any((place / name).exists() for place in places) for name in names)


def move(temporary: Path) -> None:
    """Move what lies in a temporary folder beside it, or what an earlier move left there.

    Raises `UserError` before the first entry moves, where something stands in the place of one.
    """
    journal = journal_of(temporary)
    begun = journal.exists()
    left = sorted(temporary.iterdir()) if temporary.is_dir() else []
    for path in left:
        if (there := temporary.parent / path.name).exists():
            if not begun:
                shutil.rmtree(temporary, ignore_errors=True)
            raise UserError(f"{there}: is there already; move it away, or choose another folder")
    if not begun:
        write_text(journal, json.dumps([path.name for path in left]) + "\n")
    for path in left:
        os.replace(path, temporary.parent / path.name)


def finish(temporary: Path, done: Path) -> None:
    """Make the journal of a move that came to its end the mark `done`."""
    os.replace(journal_of(temporary), done)
    shutil.rmtree(temporary, ignore_errors=True)


def is_done(done: Path) -> bool:
    """Whether the mark is there, and anything of what was moved beside it then."""
    names = read_names(done)
    return done.is_file() and (not names or any((done.parent / name).exists() for name in names))


def clear(folder: Path) -> None:
    """Remove temporary folders that were not unpacked to the end, or of which something is gone."""
    for temporary in {path.with_suffix("") for path in folder.glob(f"{LEFTOVER}-*")}:
        if not has_begun(temporary):
            journal_of(temporary).unlink(missing_ok=True)  # first: what is half gone must not count
            shutil.rmtree(temporary, ignore_errors=True)
