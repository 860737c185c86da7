"""What an evaluation leaves in the folder of its run, and how it is found again.

$CATNET_RUNS/RUN/evaluations/NAME/rows.csv        tidy rows
                                 /settings.json   how they came about, and their hash
                                 /predictions/    labels on the scanner's grid
                                 /pictures/       contours
                                 /browser/        what a report lets one look at
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from catnet.config import EvaluateSettings, digest
from catnet.data.store import open_cases
from catnet.files import write_text
from catnet.runs import RunFolder, check_unchanged, write_json
from catnet.strict import read_json

ROWS = "rows.csv"
NAMES = ("run", "setting", "support", "query")  # may look like numbers, and are none


@dataclass(frozen=True)
class Evaluation:
    """Where an evaluation lies, and its tidy rows."""

    path: Path
    rows: pd.DataFrame


def evaluation_folder(folder: RunFolder) -> Path:
    """Where the evaluation that a run's settings ask for lies, or would lie."""
    return folder.path / "evaluations" / folder.run.evaluate.name()


def finished_evaluation(folder: RunFolder) -> Evaluation | None:
    """What a former call left of this very evaluation; None where it has to be computed."""
    path = evaluation_folder(folder)
    try:
        text = (path / ROWS).read_text(encoding="utf-8")
        known = read_json(path / "settings.json")
    except (OSError, ValueError):
        return None
    if known != record(folder.run.evaluate, text):
        return None
    check_unchanged(folder, open_cases(folder.card))
    rows = pd.read_csv(path / ROWS, dtype=dict.fromkeys(NAMES, str), keep_default_na=False)
    return Evaluation(path, rows)


def write_evaluation(folder: RunFolder, rows: pd.DataFrame) -> Evaluation:
    """Write the rows, then what tells that they are whole."""
    path = evaluation_folder(folder)
    text = rows.to_csv(index=False)
    write_text(path / ROWS, text)
    write_json(path / "settings.json", record(folder.run.evaluate, text))
    return Evaluation(path, rows)


def record(settings: EvaluateSettings, rows: str) -> dict[str, object]:
    """What tells whether rows are whole, and those of these settings."""
    return {"settings": settings.model_dump(mode="json"), "rows": digest(rows)}
