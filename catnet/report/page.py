"""The report as one HTML page that opens from disk: no network, no framework, prints well.

The page is a pure function of `Page`: tables as grids, plots as SVG, recorded cases packed.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catnet.report.browser import Browser, pack_browser
from catnet.report.grid import Grid, groups
from catnet.report.recorded import Recorded
from catnet.report.svg import inline_svg

SITE = Path(__file__).parent / "site"
LIMIT = 4_500_000  # bytes of a page
SCRIPTS = ("tables.js", "contours.js", "decode.js", "browser.js")


@dataclass(frozen=True)
class Plot:
    """A picture with what it shows, in words."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Page:
    """Everything the page says, in its order; sections without content are left out.

    `provenance` holds (name, value); `sources` are grids of it, such as runs and data hashes.
    """

    title: str
    question: str
    answer: str
    dice: Grid
    cautions: tuple[str, ...] = ()
    comparisons: tuple[Grid, ...] = ()
    curves: tuple[Plot, ...] = ()
    cost: tuple[Plot, ...] = ()
    boxes: tuple[Plot, ...] = ()
    browser: Browser | None = None
    provenance: tuple[tuple[str, str], ...] = ()
    sources: tuple[Grid, ...] = ()


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
        groups=groups,
        starts=starts,
        numeric=numeric,
        drawn={name: draw(getattr(page, name), name) for name in ("curves", "cost", "boxes")},
        style=Markup(read("style.css")),
        script=Markup("\n".join(read(name) for name in SCRIPTS)),
        data=None if page.browser is None else Markup(page.browser.text.replace("<", "\\u003c")),
    )


def render_with_cases(page: Page, recorded: Iterable[Recorded], *, limit: int = LIMIT) -> str:
    """The page with as many of the recorded slices as leave it below `limit` bytes."""
    rest = limit - len(render(replace(page, browser=None)).encode()) - 20_000  # the list of cases
    return render(replace(page, browser=pack_browser(recorded, limit=rest)))


def starts(grid: Grid, place: int) -> bool:
    """Whether a group of columns, but the first, begins at a column."""
    return place > 0 and grid.columns[place].group != grid.columns[place - 1].group


def numeric(grid: Grid, place: int) -> bool:
    """Whether any cell of a column stands for a number."""
    return any(line.cells[place].sort for line in grid.lines)


def draw(plots: tuple[Plot, ...], name: str) -> list[tuple[str, Markup]]:
    """Caption and inline SVG of every plot; their ids do not meet."""
    return [
        (plot.caption, Markup(inline_svg(plot.svg, prefix=f"{name}-{number}", label=plot.caption)))
        for number, plot in enumerate(plots)
    ]


def read(name: str) -> str:
    """A file of the site."""
    return (SITE / name).read_text(encoding="utf-8")
