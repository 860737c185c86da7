"""Places to write to, tried before the work whose result they are for."""

import os
from pathlib import Path

from catnet.errors import UserError


def try_file(path: Path) -> None:
    """Raise `UserError` where a file could not be written; makes its folder and leaves nothing."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; give the name of a file")
    if path.parent.is_file():
        raise UserError(f"{path.parent} is a file; give the name of a folder")
    trial = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); give a place that you may write to"
        ) from None
