"""The table of a benchmark: for a terminal, and as Markdown."""

from collections.abc import Sequence
from statistics import median

from rich import box
from rich.table import Table

from catnet.bench.fits import Curve
from catnet.bench.pairs import Row
from catnet.bench.speed import Speed

HEAD = ("what", "plain", "library", "ratio", "min to max", "pairs")
CURVE_HEAD = ("cost of", "over", "from, to", "exponent", "interval", "grows")


def cells(row: Row) -> tuple[str, ...]:
    """One line: medians, the median ratio and its range."""
    ratios = row.ratios
    return (
        row.name,
        amount(median(row.plain), row.unit),
        amount(median(row.fast), row.unit),
        f"{median(ratios):.2f}",
        f"{min(ratios):.2f} to {max(ratios):.2f}",
        str(len(ratios)),
    )


def amount(value: float, unit: str) -> str:
    """A time or a size with three digits."""
    if unit == "s" and value < 0.1:
        return f"{1e3 * value:.3g} ms"
    return f"{value:,.0f} {unit}" if value >= 1000 else f"{value:.3g} {unit}"


def terminal_table(rows: Sequence[Row]) -> Table:
    """For a terminal, without the notes."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for number, name in enumerate(HEAD):
        table.add_column(name, justify="left" if number == 0 else "right", no_wrap=number > 0)
    for row in rows:
        table.add_row(*cells(row))
    return table


def note_lines(rows: Sequence[Row]) -> list[str]:
    """What a reader must know of some rows."""
    return [f"{row.name}: {row.note}." for row in rows if row.note]


def speed_lines(speed: Speed) -> list[str]:
    """Operations and rates, in sentences."""
    lines = [
        f"A training episode is {speed.library.total / 1e9:,.1f} GFLOP in the library "
        f"({speed.library.forward / 1e9:,.1f} forward, {speed.library.backward / 1e9:,.1f} "
        f"backward) and {speed.plain.total / 1e9:,.1f} on the plain side; matrix products, "
        "convolutions and attention, two operations a multiply-add."
    ]
    lines += [
        f"{one.precision}: matrix products run at {one.matrix / 1e9:,.1f} GFLOP/s here, training "
        f"at {one.training / 1e9:,.1f}, {100 * one.training / one.matrix:.0f} % of that."
        for one in speed.reaches
    ]
    return lines


def curve_cells(curve: Curve) -> tuple[str, ...]:
    """One line: the range, the costs at its ends, the exponent with its interval."""
    fit, costs = curve.fit, curve.quickest
    return (
        curve.cost,
        f"{curve.places[0]:g} to {curve.places[-1]:g} {curve.over}",
        f"{amount(costs[0], 's')} to {amount(costs[-1], 's')}",
        f"{fit.exponent:.2f}",
        f"{fit.low:.2f} to {fit.high:.2f}",
        curve.verdict,
    )


def terminal_curves(curves: Sequence[Curve]) -> Table:
    """For a terminal."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for number, name in enumerate(CURVE_HEAD):
        table.add_column(name, justify="left" if number < 2 else "right")
    for curve in curves:
        table.add_row(*curve_cells(curve))
    return table


def markdown_curves(curves: Sequence[Curve]) -> str:
    """The same with the sentences that explain the curves."""
    lines = [(*curve_cells(curve), curve.because) for curve in curves]
    return markdown_table([*CURVE_HEAD, "because"], lines)


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text, the others numbers."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))


def markdown_rows(rows: Sequence[Row]) -> str:
    """The table, and its notes below."""
    notes = "\n".join(f"- {line}" for line in note_lines(rows))
    parts = [markdown_table(HEAD, [cells(row) for row in rows]), notes]
    return "\n\n".join(part for part in parts if part)
