"""The report as one HTML page that opens from disk: no network, no framework, prints well.

The page is a pure function of `Page`: tables as rows of cells, plots as SVG, recorded cases packed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catnet.report.browser import Browser, pack_browser
from catnet.report.recorded import Recorded
from catnet.report.svg import inline_svg

SITE = Path(__file__).parent / "site"
LIMIT = 4_500_000  # bytes of a page
SCRIPTS = ("tables.js", "contours.js", "decode.js", "browser.js")


@dataclass(frozen=True)
class Cell:
    """What a table shows in one place.

    text   what is read; `note` stands small below it, such as an interval
    sort   what the column is sorted by; a cell without it stays last either way
    rank   1 for the best of the column, 2 for the second; 0 for any other
    """

    text: str
    note: str = ""
    sort: float | str | None = None
    rank: int = 0


@dataclass(frozen=True)
class Column:
    """A column's name, and the name that stands above it and its equal neighbors, such as EP1."""

    name: str
    group: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Row:
    """One line; a `floor` (copy, untrained) stays on top however the others are sorted."""

    cells: tuple[Cell, ...]
    floor: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column says what a row is."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The names above the columns but the first, each with the number of its columns."""
        found: list[tuple[str, int]] = []
        for column in self.columns[1:]:
            if found and found[-1][0] == column.group:
                found[-1] = (column.group, found[-1][1] + 1)
            else:
                found.append((column.group, 1))
        return found

    @property
    def grouped(self) -> bool:
        """Whether anything stands above the columns."""
        return any(column.group for column in self.columns)

    def starts(self, place: int) -> bool:
        """Whether a group of columns, but the first, begins there."""
        return place > 1 and self.columns[place].group != self.columns[place - 1].group

    @property
    def floors(self) -> list[Row]:
        """The rows that stay on top."""
        return [row for row in self.rows if row.floor]

    @property
    def others(self) -> list[Row]:
        """The rows that are sorted and filtered."""
        return [row for row in self.rows if not row.floor]


@dataclass(frozen=True)
class Plot:
    """A picture with what it shows, in words."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Page:
    """Everything the page says, in its order; sections without content are left out.

    `provenance` holds (name, value); `sources` are tables of it, such as runs and data hashes.
    """

    title: str
    question: str
    answer: str
    dice: Table
    cautions: tuple[str, ...] = ()
    comparisons: tuple[Table, ...] = ()
    curves: tuple[Plot, ...] = ()
    cost: tuple[Plot, ...] = ()
    boxes: tuple[Plot, ...] = ()
    browser: Browser | None = None
    provenance: tuple[tuple[str, str], ...] = ()
    sources: tuple[Table, ...] = ()


def render(page: Page) -> str:
    """The page as HTML; everything in it is escaped but the plots and the packed cases."""
    environment = Environment(
        loader=FileSystemLoader(SITE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("index.html.jinja")
    return template.render(
        page=page,
        drawn={name: draw(getattr(page, name), name) for name in ("curves", "cost", "boxes")},
        style=Markup(read("style.css")),
        script=Markup("\n".join(read(name) for name in SCRIPTS)),
        data=None if page.browser is None else Markup(page.browser.text.replace("<", "\\u003c")),
    )


def render_with_cases(page: Page, recorded: Iterable[Recorded], *, limit: int = LIMIT) -> str:
    """The page with as many of the recorded slices as leave it below `limit` bytes."""
    rest = limit - len(render(replace(page, browser=None)).encode()) - 20_000  # the list of cases
    return render(replace(page, browser=pack_browser(recorded, limit=rest)))


def draw(plots: tuple[Plot, ...], name: str) -> list[tuple[str, Markup]]:
    """Caption and inline SVG of every plot; their ids do not meet."""
    return [
        (plot.caption, Markup(inline_svg(plot.svg, prefix=f"{name}-{number}", label=plot.caption)))
        for number, plot in enumerate(plots)
    ]


def read(name: str) -> str:
    """A file of the site."""
    return (SITE / name).read_text(encoding="utf-8")
