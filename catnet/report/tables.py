"""Tables of Dice per organ from tidy rows."""

import math

import pandas as pd
from rich import box
from rich.table import Table


def summarize(rows: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Mean and standard deviation over (support, query) of one metric.

    Index (protocol, model), each in the order it first appears; columns (organ, "mean" | "std")
    and, for the mean over organs, ("mean", "mean") and ("mean", "std"); that std is over the means
    of pairs.
    """
    chosen = rows[rows["metric"] == metric]
    keys = ["protocol", "model"]
    organs = list(dict.fromkeys(chosen["organ"]))
    each = chosen.pivot_table("value", [*keys, "support", "query"], "organ", sort=False)[organs]
    overall = each.groupby(level=keys, sort=False).mean().mean(axis=1)
    spread = each.mean(axis=1).groupby(level=keys, sort=False).std(ddof=1)
    table = each.groupby(level=keys, sort=False).agg(["mean", "std"])
    table["mean", "mean"], table["mean", "std"] = overall, spread
    return table


def terminal_table(rows: pd.DataFrame, *, title: str) -> Table:
    """Dice in percent, mean and standard deviation over cases, a line a protocol and model."""
    summary = summarize(rows)
    caption = "Dice in %, mean±standard deviation over cases"
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("model", no_wrap=True)
    columns = list(dict.fromkeys(summary.columns.get_level_values(0)))
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    previous = None
    for (protocol, model), values in summary.iterrows():
        if previous not in (None, protocol):
            table.add_section()
        table.add_row(
            protocol if protocol != previous else "",
            model,
            *(cell(values[c, "mean"], values[c, "std"]) for c in columns),
        )
        previous = protocol
    return table


def cell(mean: float, deviation: float) -> str:
    """`58.6±4.1`, `58.6` where one case has no deviation, `-` where no case shows the organ."""
    if math.isnan(mean):
        return "-"
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f}±{deviation:.1f}"
