"""How much the rounds still change: a table, a sentence and curves from rows of CKA."""

from io import BytesIO
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from rich import box
from rich.markup import escape
from rich.table import Table

from catnet.files import write_bytes, write_text

SETTLED = 0.95  # CKA of the last two rounds from which the last one counts as a small change
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", ":")
TOP = 1.03  # of the axis: the last round's 1 is not cut


def summarize_similarity(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean CKA over slices and organs: a line a (run, group), a column a round.

    Runs of one group repeat one another: they differ in fold and seed alone.

    A run of fewer rounds than another one has nan in the columns that it lacks.
    """
    keys = ["run", "group"]
    return rows.pivot_table("cka", keys, "round", aggfunc="mean", sort=False).sort_index(axis=1)


def similarity_table(rows: pd.DataFrame) -> Table:
    """The summary for a terminal."""
    summary = summarize_similarity(rows)
    slices = rows[rows["round"] == 0].groupby("run").size()
    table = Table(
        title="Query feature, round by round",
        caption="linear CKA with the last round's, mean over query slices of all organs",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("run", no_wrap=True)
    table.add_column("self / cross", overflow="fold")
    table.add_column("slices", justify="right", no_wrap=True)
    for number in summary.columns:
        table.add_column("0 (MIFE)" if number == 0 else str(number), justify="right", no_wrap=True)
    for (run, group), values in summary.iterrows():
        numbers = ("" if np.isnan(value) else f"{value:.3f}" for value in values)
        table.add_row(run, escape(group), str(slices[run]), *numbers)
    return table


def verdict(rows: pd.DataFrame) -> str:
    """One sentence: in which groups of runs the last round still changes the query feature.

    It counts as hardly where the CKA of the features before and after it is at least `SETTLED`.
    """
    words: dict[str, list[str]] = {"still": [], "hardly": []}
    for (group, rounds), runs in curves(rows).items():
        before = runs.mean()[rounds - 1]
        how = "hardly" if before >= SETTLED else "still"
        words[how].append(f"{group} (round {rounds - 1} to {rounds}, CKA {before:.3f})")
    parts = [
        f"{how} changes the query feature with {', '.join(names)}"
        for how, names in words.items()
        if names
    ]
    return f"The last round {' and '.join(parts)}; hardly means CKA {SETTLED} or more."


def curves(rows: pd.DataFrame) -> dict[tuple[str, int], pd.DataFrame]:
    """For every group and number of rounds: a line a run, a column a round, mean CKA."""
    summary = summarize_similarity(rows)
    last = summary.apply(pd.Series.last_valid_index, axis=1).rename("last")
    found = summary.groupby(["group", last], sort=False)
    return {(group, int(rounds)): runs.loc[:, :rounds] for (group, rounds), runs in found}


def draw_curves(rows: pd.DataFrame) -> "Figure":  # noqa: F821
    """CKA with the last round over the rounds: bold a group, thin its runs where several.

    The axis goes from 0 to 1 whatever there is to see, so that two pictures can be compared.
    """
    from matplotlib.figure import Figure  # late: it costs a second, and most commands draw nothing

    lines = len(curves(rows))
    figure = Figure(figsize=(5.0, 3.2 + 0.18 * lines), layout="constrained")
    axes = figure.subplots()
    styles = cycle((color, line) for line in LINES for color in COLORS)
    for (group, rounds), runs in curves(rows).items():
        color, line = next(styles)
        if len(runs) > 1:
            axes.plot(runs.columns, runs.T, color=color, linestyle=line, linewidth=0.7, alpha=0.5)
        label = f"{group}, {plural(rounds, 'round')}, {plural(len(runs), 'run')}"
        axes.plot(runs.columns, runs.mean(), color=color, linestyle=line, marker="o", label=label)
    axes.set_xticks(range(int(rows["round"].max()) + 1))
    axes.set_xlabel("round (0: what MIFE gives)")
    axes.set_ylabel("CKA with the last round")
    axes.set_ylim(0, TOP)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    title = "mechanism at the self place / at the cross place"
    figure.legend(
        frameon=False, fontsize=8, title=title, title_fontsize=8, loc="outside lower center"
    )
    return figure


def plural(count: int, word: str) -> str:
    """`1 run`, `2 runs`."""
    return f"{count} {word}{'' if count == 1 else 's'}"


def write_similarity(folder: Path, rows: pd.DataFrame) -> None:
    """Write `similarity.csv`, and the curves as `similarity.svg` and `similarity.png`."""
    figure = draw_curves(rows)
    for kind, facts in (("svg", {"Date": None}), ("png", {})):
        file = BytesIO()
        figure.savefig(file, format=kind, dpi=130, metadata=facts)
        write_bytes(folder / f"similarity.{kind}", file.getvalue())
    write_text(folder / "similarity.csv", rows.to_csv(index=False))
