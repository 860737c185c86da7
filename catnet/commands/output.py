"""Places to write to, tried before the work whose result they are for."""

import os
from pathlib import Path

from catnet.errors import UserError, writing


def try_file(path: Path) -> None:
    """Raise `UserError` where a file could not be written; makes its folder and leaves nothing."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    trial = path.with_name(f".{os.getpid()}-{path.name}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
