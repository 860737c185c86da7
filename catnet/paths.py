"""Where things lie: cards by path, prepared data and runs outside the source tree."""

import os
from pathlib import Path


def data_home() -> Path:
    """Folder of prepared cases, one sub-folder a card: `$CATNET_DATA`, or `~/catnet/data`."""
    return Path(os.environ.get("CATNET_DATA", "~/catnet/data")).expanduser()


def runs_home() -> Path:
    """Folder of runs: `$CATNET_RUNS`, or `~/catnet/runs`."""
    return Path(os.environ.get("CATNET_RUNS", "~/catnet/runs")).expanduser()


def cards_home() -> Path:
    """Folder that a bare card name is looked up in: `$CATNET_CARDS`, or `datasets` right here."""
    return Path(os.environ.get("CATNET_CARDS", "datasets")).expanduser()
