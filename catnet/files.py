"""Files that are whole or not there, however a process ends."""

import os
from pathlib import Path

from catnet.errors import writing


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the place, then move there; raises `UserError` where the disk refuses."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())
