"""A table as data that a page can loop over, and as Markdown and LaTeX."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from math import isnan

NOTHING = "-"
RANKED = {1: r"\textbf{%s}", 2: r"\underline{%s}"}
SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "[": "{[}",  # after a line's end these two would be its options
    "*": "{*}",
} | {sign: f"\\{sign}" for sign in "&%$#_{}"}


@dataclass(frozen=True)
class Cell:
    """What is printed, and what it stands for.

    value, low, high   the number and its interval; nan where there is none
    rank               1 best, 2 second of its column; None for others and for floors
    sort               a text whose order as a number is the cell's, "" where there is none
    """

    text: str
    value: float = float("nan")
    low: float = float("nan")
    high: float = float("nan")
    rank: int | None = None

    @property
    def sort(self) -> str:
        """The value, unrounded."""
        return "" if isnan(self.value) else repr(float(self.value))


@dataclass(frozen=True)
class Line:
    """A row: its names (as many as the grid has `heads`), whether it is a floor, its cells."""

    names: tuple[str, ...]
    floor: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Column:
    """A column and the group it stands under ("" for none)."""

    group: str
    name: str


@dataclass(frozen=True)
class Grid:
    """A table: the heads of the names, the columns of the cells, the lines, what they mean."""

    heads: tuple[str, ...]
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    caption: str


def groups(grid: Grid) -> list[tuple[str, int]]:
    """(group, number of columns under it), in order."""
    found = groupby(grid.columns, key=lambda column: column.group)
    return [(group, len(list(columns))) for group, columns in found]


def markdown(grid: Grid) -> str:
    """A pipe table; bold is best of its column, italics second. The caption stands below."""
    names = [" ".join(filter(None, (column.group, column.name))) for column in grid.columns]
    rule = ["---"] * len(grid.heads) + ["---:"] * len(names)
    marks = {1: "**%s**", 2: "*%s*"}
    body = [
        [*map(plain, line.names), *(marked(cell, marks, plain) for cell in line.cells)]
        for line in grid.lines
    ]
    rows = [[*map(plain, [*grid.heads, *names])], rule, *body]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\n{grid.caption}\n"


def latex(grid: Grid) -> str:
    """A `tabular` of booktabs; bold is best of its column, underlined second.

    Needs `\\usepackage{booktabs}` and UTF-8 input.
    """
    fields = "l" * len(grid.heads) + "r" * len(grid.columns)
    names = [*grid.heads, *(column.name for column in grid.columns)]
    lines = [f"% {grid.caption}", rf"\begin{{tabular}}{{{fields}}}", r"\toprule"]
    lines += [*group_lines(grid), ended(map(escape, names)), r"\midrule"]
    for before, line in zip([None, *grid.lines], grid.lines, strict=False):
        if before is not None and before.floor and not line.floor:
            lines.append(r"\midrule")
        cells = (marked(cell, RANKED, escape) for cell in line.cells)
        lines.append(ended([*map(escape, line.names), *cells]))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def group_lines(grid: Grid) -> list[str]:
    """The line of groups with the rules below it; none where no column has a group."""
    if not any(column.group for column in grid.columns):
        return []
    start = len(grid.heads) + 1
    titles, rules = [""] * len(grid.heads), []
    for group, count in groups(grid):
        titles.append(rf"\multicolumn{{{count}}}{{c}}{{{escape(group)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [ended(titles), " ".join(rules)]


def ended(fields: object) -> str:
    """A row of LaTeX."""
    return " & ".join(fields) + r" \\"


def marked(cell: Cell, marks: dict[int, str], escaped: Callable[[str], str]) -> str:
    """The cell's text, with the mark of its rank."""
    text = escaped(cell.text)
    return marks[cell.rank] % text if cell.rank in marks else text


def escape(text: str) -> str:
    """Text as LaTeX prints it."""
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def plain(text: str) -> str:
    """Text that Markdown takes as it is."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]" else sign for sign in text)
