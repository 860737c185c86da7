"""What the environment says: where cards, prepared data and runs lie, and whom to follow."""

import os
from pathlib import Path

FOLLOW = "CATNET_FOLLOW"  # the process that this one is to end with


def data_home() -> Path:
    """Folder of prepared cases, one sub-folder a card: `$CATNET_DATA`, or `~/catnet/data`."""
    return Path(os.environ.get("CATNET_DATA", "~/catnet/data")).expanduser()


def runs_home() -> Path:
    """Folder of runs: `$CATNET_RUNS`, or `~/catnet/runs`."""
    return Path(os.environ.get("CATNET_RUNS", "~/catnet/runs")).expanduser()


def cards_home() -> Path:
    """Folder that a bare card name is looked up in: `$CATNET_CARDS`, or `datasets` right here."""
    return Path(os.environ.get("CATNET_CARDS", "datasets")).expanduser()
