"""A study as documents: one page, the tables as Markdown, CSV and LaTeX, the plots as SVG."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from catnet.files import HOLDER, alone, clear_named, write_text
from catnet.report.answer import COPY, answer, warnings
from catnet.report.boxes import boxes
from catnet.report.comparable import check_comparable
from catnet.report.grid import Grid, latex, markdown
from catnet.report.origin import cautions, facts, grids
from catnet.report.page import Page, Plot, render_with_cases
from catnet.report.patients import OVERALL, distinct, networks, varied_settings
from catnet.report.plots import accuracy_against_cost, curve, has_curve
from catnet.report.recorded import Recorded
from catnet.report.statistics import compare, describe
from catnet.report.study import Study, parted
from catnet.report.style import svg
from catnet.report.tables import comparison_table, dice_table, long_csv

Drawing = Callable[[pd.DataFrame], Figure]
CAPTIONS = {
    "curve": "Mean Dice over patients with its 95 % bootstrap interval; below, what an episode of "
    "training took and the memory at its peak.",
    "cost": "Mean Dice with its 95 % interval against the time of a training episode.",
    "boxes": "Every dot is a patient, at the same height in every box; lines are the floors.",
}
WRITTEN = re.compile(  # what a report that was killed may have left half of in the user's folder
    r"(dice|comparison)\.(md|csv|tex)|(rows|costs)\.csv|(curve|cost|boxes)\.svg|index\.html|"
    + re.escape(HOLDER)
)


def write_report(study: Study, folder: Path, *, command: str) -> Path:
    """Write the report of a study into `folder`; returns the page, which is written last.

    Raises `UserError` where a run is not evaluated, where the runs do not fit one table, and where
    another process writes there.
    """
    rows = study.rows()
    check_comparable(rows)
    described, compared = describe(rows), compare(rows, reference=against(rows))
    dice, comparison = dice_table(described), comparison_table(compared)
    plots = {name: svg(draw(rows)) for name, draw in drawings(rows).items()}
    page = Page(
        title=title(rows),
        question=study.question or study.name,
        answer=answer(rows, varied_settings(rows)),
        cautions=(*warnings(rows), *cautions(study)),
        dice=dice,
        comparisons=(comparison,) if comparison.lines else (),
        curves=shown(plots, "curve"),
        cost=shown(plots, "cost"),
        boxes=shown(plots, "boxes"),
        provenance=facts(study, command=command),
        sources=grids(study),
    )
    html = render_with_cases(page, recorded(study, described))
    with alone(folder, clear=partial(clear_named, names=WRITTEN)):
        write_table(folder, "dice", dice, described)
        if comparison.lines:
            write_table(folder, "comparison", comparison, compared)
        for name, part in zip(("rows", "costs"), parted(rows), strict=True):
            write_text(folder / f"{name}.csv", long_csv(part))
        for name, text in plots.items():
            write_text(folder / f"{name}.svg", text)
        write_text(folder / "index.html", html)
    return folder / "index.html"


def against(rows: pd.DataFrame) -> str | None:
    """What the variants are compared with: the best of them, or copying where there is but one."""
    alone = networks(rows)["variant"].nunique() == 1
    return COPY if alone and COPY in set(rows["model"]) else None


def drawings(rows: pd.DataFrame) -> dict[str, Drawing]:
    """The plots that these rows allow."""
    several = networks(rows)["variant"].nunique() > 1
    found: dict[str, Drawing] = {"boxes": boxes}
    if several and (rows["metric"] == "episode_seconds").any():
        found["cost"] = accuracy_against_cost
    if several and has_curve(rows):
        found["curve"] = curve
    return found


def shown(plots: Mapping[str, str], name: str) -> tuple[Plot, ...]:
    """A plot with its caption, where it was drawn."""
    return (Plot(CAPTIONS[name], plots[name]),) if name in plots else ()


def title(rows: pd.DataFrame) -> str:
    """What was tested on."""
    card, setting, fold = (
        ", ".join(map(str, distinct(rows[name]))) for name in ("card", "setting", "fold")
    )
    return f"{card}, setting {setting}, fold {fold}"


def recorded(study: Study, described: pd.DataFrame) -> list[Recorded]:
    """What the runs recorded of their cases, the best variant first."""
    overall = networks(described[described["organ"] == OVERALL])
    first = overall[overall["protocol"] == overall["protocol"].iloc[0]]
    order = list(first.sort_values("mean", ascending=False, kind="stable")["variant"])
    found = [Recorded(member.label, member.evaluation / "browser") for member in study.members]
    return sorted(found, key=lambda one: order.index(one.variant))


def write_table(folder: Path, name: str, grid: Grid, frame: pd.DataFrame) -> None:
    """One table as Markdown, LaTeX and, unrounded, CSV."""
    write_text(folder / f"{name}.md", markdown(grid))
    write_text(folder / f"{name}.tex", latex(grid))
    write_text(folder / f"{name}.csv", long_csv(frame))
