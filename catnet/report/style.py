"""How every picture of a report looks: 900 pixels wide, legible on light and on dark pages.

Palette: Okabe and Ito, "Color Universal Design", 2008, without its black and its yellow, which one
kind of page or the other swallows.
"""

from io import StringIO
from textwrap import wrap

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

WIDTH = 9.375  # inches; 900 pixels of a page, 96 to the inch
GREY = "#808080"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = {"copy": (0, (5, 3)), "untrained": (0, (1, 2))}
STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "text.color": GREY,
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "catnet",
}
WIDE = 20.0  # ratio of largest to smallest from which an axis is logarithmic


def svg(figure: Figure) -> str:
    """The picture as SVG: text stays text, no date; the same rows give the same bytes."""
    file = StringIO()
    with rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def color_of(number: int) -> str:
    """Colors in a fixed order, from the start again after the last."""
    return COLORS[number % len(COLORS)]


def wrapped(name: str, *, width: int) -> str:
    """A long name in lines of about `width` characters; only a word twice as long is broken."""
    long = max(map(len, name.split()), default=0) > 2 * width
    return "\n".join(wrap(name, width, break_long_words=long, break_on_hyphens=False)) or name


def spread_wide(values: list[float]) -> bool:
    """Whether positive values ask for a logarithmic axis."""
    return min(values) > 0 and max(values) / min(values) >= WIDE


def number_ticks(axes: Axes, values: list[float]) -> None:
    """A tick at every value of a setting; of many that lie close, only those with room."""
    if spread_wide(values):
        axes.set_xscale("log")
    axes.set_xmargin(0.08)
    axes.autoscale_view()
    places = axes.transData.transform([(value, 1.0) for value in values])[:, 0]
    kept: list[int] = []
    room = 7.0 * max(len(f"{value:g}") for value in values) + 8.0
    for index, place in enumerate(places):
        if not kept or abs(place - places[kept[-1]]) >= room:
            kept.append(index)
    axes.xaxis.set_major_locator(FixedLocator([values[index] for index in kept]))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{values[index]:g}" for index in kept]))
    axes.xaxis.set_minor_locator(NullLocator())
