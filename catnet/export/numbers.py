"""What a run's evaluations say, as a model card tells it."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from catnet.config import EvaluateSettings
from catnet.errors import UserError
from catnet.evaluations import record
from catnet.report.rows import read_rows
from catnet.report.statistics import describe
from catnet.runs import RunFolder
from catnet.strict import check

COLUMNS = "| protocol | model | organ | Dice in % | 95 % interval | patients |"


@dataclass(frozen=True)
class Told:
    """One evaluation: how it was done, and its tidy rows."""

    settings: EvaluateSettings
    rows: pd.DataFrame


def finished(folder: RunFolder) -> list[Told]:
    """Every whole evaluation of a run, by the name of its folder."""
    found = []
    for path in sorted((folder.path / "evaluations").glob("*/rows.csv")):
        settings = read_settings(path)
        if settings is not None:
            found.append(Told(settings, read_rows(path)))
    return found


def read_settings(rows: Path) -> EvaluateSettings | None:
    """The settings that rows came about by; None where the rows are not those, or not whole."""
    path = rows.with_name("settings.json")
    try:
        text = rows.read_text(encoding="utf-8")
        known = json.loads(path.read_text(encoding="utf-8"))
        settings = check(EvaluateSettings, known["settings"], source=str(path))
    except (OSError, ValueError, KeyError, TypeError, UserError):
        return None
    return settings if known == record(settings, text) else None


def dice_table(told: Told) -> str:
    """Dice per organ and their mean, with the interval over patients, as Markdown."""
    lines = describe(told.rows.assign(variant=""), "dice")
    rows = [
        f"| {line.protocol} | {line.model} | {line.organ} | {line.mean:.1f} | "
        f"{interval(line.low, line.high)} | {line.patients} |"
        for line in lines.itertuples()
    ]
    return "\n".join([COLUMNS, "|---|---|---|---|---|---|", *rows])


def interval(low: float, high: float) -> str:
    """The bootstrap interval; none can be given for fewer than three patients."""
    return "none, too few" if pd.isna(low) else f"{low:.1f} to {high:.1f}"
