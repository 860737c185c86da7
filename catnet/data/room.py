"""Whether what comes fits the disk."""

import shutil
from pathlib import Path

from catnet.errors import UserError


def check_room(folder: Path, size: int) -> None:
    """Raise `UserError` where `size` more bytes do not fit the disk."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(
            f"{folder}: {in_words(size)} are needed and {in_words(free)} are free; free space on "
            "its disk, or choose another folder"
        )


def in_words(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
