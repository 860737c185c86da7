"""What the environment says: where cards, prepared data and runs lie, and whom to follow."""

import errno
import os
from pathlib import Path

FOLLOW = "CATNET_FOLLOW"  # the process that this one is to end with


def home(variable: str, usual: str) -> Path:
    """The folder that a variable of the environment names; raises `OSError` for nobody's `~`."""
    said = os.environ.get(variable, usual)
    try:
        return Path(said).expanduser()
    except RuntimeError:
        raise OSError(errno.ENOENT, f"no such user's home, which {variable} names", said) from None


def data_home() -> Path:
    """Folder of prepared cases, one sub-folder a card: `$CATNET_DATA`, or `~/catnet/data`."""
    return home("CATNET_DATA", "~/catnet/data")


def runs_home() -> Path:
    """Folder of runs: `$CATNET_RUNS`, or `~/catnet/runs`."""
    return home("CATNET_RUNS", "~/catnet/runs")


def cards_home() -> Path:
    """Folder that a bare card name is looked up in: `$CATNET_CARDS`, or `datasets` right here."""
    return home("CATNET_CARDS", "datasets")
