"""Tables of Dice per organ from tidy rows."""

import pandas as pd
from rich import box
from rich.table import Table


def summarize(rows: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Mean and standard deviation over (support, query) of one metric.

    Index (protocol, model) in the order of the rows, columns (organ, "mean" | "std") and, for the
    mean over organs, ("mean", "mean") and ("mean", "std"); that std is over the means of pairs.
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
    table.add_column("protocol", no_wrap=True)
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
            *(f"{values[c, 'mean']:.1f}±{values[c, 'std']:.1f}" for c in columns),
        )
        previous = protocol
    return table
