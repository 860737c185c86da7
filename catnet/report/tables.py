"""Tables of Dice per organ from tidy rows, and of the differences between variants."""

import math

import pandas as pd
from rich import box
from rich.table import Table

from catnet.report.grid import NOTHING, Cell, Column, Grid, Line
from catnet.report.patients import FLOORS, OVERALL, distinct, label, per_patient

DIGITS = 1  # of Dice in %; numbers that print alike share a rank


def summarize(rows: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """Mean and standard deviation over patients of one metric, and no more: no interval, no test.

    Index (protocol, model), each in the order it first appears; columns (organ, "mean" | "std")
    and, for the mean over organs, ("mean", "mean") and ("mean", "std"); that std is over each
    patient's mean of his organs. A patient's supports, seeds and folds are averaged first.
    """
    keys = ["protocol", "model"]
    each = per_patient(rows[rows["metric"] == metric], keys=keys)
    overall = each.groupby(level=keys, sort=False).mean().mean(axis=1)
    spread = each.mean(axis=1).groupby(level=keys, sort=False).std(ddof=1)
    table = each.groupby(level=keys, sort=False).agg(["mean", "std"])
    table["mean", "mean"], table["mean", "std"] = overall, spread
    return table


def terminal_table(rows: pd.DataFrame, *, title: str) -> Table:
    """Dice in percent, mean and standard deviation over patients, a line a protocol and model."""
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
        return NOTHING
    return f"{mean:.1f}" if math.isnan(deviation) else f"{mean:.1f}±{deviation:.1f}"


def dice_table(described: pd.DataFrame) -> Grid:
    """`statistics.describe` as a grid: a line a floor or variant, protocols side by side.

    Floors come first and have no rank; nor has a variant that stands alone.
    """
    lines = described[["variant", "model"]].drop_duplicates()
    shown = described.set_index(["variant", "model", "protocol", "organ"])
    organs = [*(name for name in distinct(described["organ"]) if name != OVERALL), OVERALL]
    columns = [Column(name, organ) for name in distinct(described["protocol"]) for organ in organs]
    ranks = {(column.group, column.name): ranked(described, column) for column in columns}
    return Grid(
        heads=("variant",),
        columns=tuple(columns),
        lines=tuple(
            Line(
                names=(label(variant, model),),
                floor=model in FLOORS,
                cells=tuple(
                    dice_cell(shown, (variant, model, *place), rank=found.get((variant, model)))
                    for place, found in ranks.items()
                ),
            )
            for variant, model in lines.itertuples(index=False)
        ),
        caption="Dice in %, mean±standard deviation over patients",
    )


def dice_cell(shown: pd.DataFrame, place: tuple[str, ...], *, rank: int | None) -> Cell:
    """One mean; a dash where no patient shows the organ."""
    if place not in shown.index:
        return Cell(NOTHING)
    line = shown.loc[place]
    text = cell(line["mean"], line["sd_cases"])
    return Cell(text, value=line["mean"], low=line["low"], high=line["high"], rank=rank)


def ranked(described: pd.DataFrame, column: Column) -> dict[tuple[str, str], int]:
    """Rank of every variant in a column, 1 the best; those that print alike share one.

    None has a rank where all print alike, nor one that prints as 0.
    """
    here = (described["protocol"] == column.group) & (described["organ"] == column.name)
    means = described[here & ~described["model"].isin(FLOORS)]
    printed = means["mean"].round(DIGITS)
    if printed.nunique() < 2:
        return {}
    ranks = printed.rank(ascending=False, method="min", na_option="keep")
    names = zip(means["variant"], means["model"], strict=True)
    return {
        name: int(rank)
        for name, rank, value in zip(names, ranks, printed, strict=True)
        if value > 0
    }


def comparison_table(compared: pd.DataFrame) -> Grid:
    """`statistics.compare` as a grid: a line a (protocol, variant, reference, organ)."""
    heads = ("protocol", "variant", "reference", "organ")
    names = ("difference", "95 % interval", "p", "Holm p", "effect", "pairs", "patients", "note")
    return Grid(
        heads=heads,
        columns=tuple(Column("", name) for name in names),
        lines=tuple(
            Line(
                names=tuple(line[head] for head in heads), floor=False, cells=comparison_cells(line)
            )
            for line in compared.to_dict("records")
        ),
        caption="Dice of the variant minus the reference's, in points, mean over patients; "
        "Wilcoxon signed-rank p, * Holm p below 0.05; effect: rank-biserial correlation",
    )


def comparison_cells(line: dict[str, object]) -> tuple[Cell, ...]:
    """The cells of one comparison."""
    low, high = line["low"], line["high"]
    star = "*" if line["told_apart"] else ""
    whole = (f"{line['pairs']}", f"{line['patients']}")
    pairs = f"{whole[0]} (-{line['dropped']})" if line["dropped"] else whole[0]
    return (
        Cell(number(line["difference"], "+.1f"), value=line["difference"], low=low, high=high),
        Cell(NOTHING if math.isnan(low) else f"{low:+.1f} to {high:+.1f}", value=low),
        Cell(number(line["p"], ".2g"), value=line["p"]),
        Cell(number(line["p_holm"], ".2g") + star, value=line["p_holm"]),
        Cell(number(line["effect"], "+.2f"), value=line["effect"]),
        Cell(pairs, value=float(line["pairs"])),
        Cell(whole[1], value=float(line["patients"])),
        Cell(line["note"]),
    )


def number(value: float, form: str) -> str:
    """A number, or a dash where there is none."""
    return NOTHING if math.isnan(value) else format(value, form)


def long_csv(table: pd.DataFrame) -> str:
    """`describe` or `compare` as CSV, a line a number's place, unrounded."""
    return table.to_csv(index=False, lineterminator="\n")
