"""A contact sheet: some slices of every case with its labels, in the radiologist's view.

The patient's right is on the left of the picture, the front is up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, UInt8
from numpy import ndarray
from scipy import ndimage

from catnet.data.card import Card
from catnet.data.store import Case
from catnet.files import write_bytes
from catnet.pictures import ORGANS, organ_color

SLICES = 6  # of a case
WIDTH = 160  # pixels of a slice
CASES = 24  # of one sheet
FILL = 0.25  # opacity within an organ; its border is opaque
INCH = 0.0125  # of a pixel of a strip
LINE = 0.16  # inches of a line of the legend
MOST_LINES = 18  # of the legend
LONGEST = 20  # letters of a name in the legend
SHARED = "organs of one column share a color"


@dataclass(frozen=True)
class Strip:
    """One line of the sheet: the picture of a case, and what is written over it."""

    title: str
    odd: bool
    pixels: UInt8[ndarray, "h w 3"]


def draw_strip(card: Card, case: Case) -> UInt8[ndarray, "h w 3"]:
    """Slices of a case side by side from below, evenly over those that show an organ."""
    window = np.percentile(case.image[:, ::2, ::2], (1, 99.5))
    shown = np.flatnonzero(np.any(list(case.meta.pixels.values()), axis=0))
    among = shown if len(shown) else np.arange(case.depth)
    chosen = among[np.linspace(0, len(among) - 1, SLICES).round().astype(int)]
    return np.concatenate([draw_slice(card, case, int(n), window=window) for n in chosen], axis=1)


def draw_slice(card: Card, case: Case, number: int, *, window: ndarray) -> UInt8[ndarray, "h w 3"]:
    """One slice in grey, its organs in color, of `WIDTH` pixels whatever the card's size is."""
    low, high = window
    grey = (np.asarray(case.image[number]) - low) / max(high - low, 1e-6)
    rows, columns = places(card, case)
    picture = np.repeat(grey.clip(0, 1)[rows][:, columns][..., np.newaxis], 3, axis=-1)
    label = np.asarray(case.label[number])[rows][:, columns]
    return np.rint(255 * paint(picture, label, card.organs)).astype(np.uint8)


def paint(
    picture: Float[ndarray, "h w 3"], label: ndarray, organs: Mapping[str, int]
) -> Float32[ndarray, "h w 3"]:
    """The organs over the slice: the border opaque, the inside as through colored glass."""
    found = picture.astype(np.float32)
    for place, number in enumerate(organs.values()):
        mask = label == number
        border = mask & ~ndimage.binary_erosion(mask, border_value=1)
        color = np.array(rgb(organ_color(place)), dtype=np.float32)
        for where, opacity in ((mask, FILL), (border, 1 - FILL)):
            found[where] = (1 - opacity) * found[where] + opacity * color
    return found


def rgb(color: str) -> tuple[float, float, float]:
    """Red, green and blue, in [0, 1], of `#rrggbb`."""
    red, green, blue = (int(color[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return red, green, blue


def places(card: Card, case: Case) -> tuple[ndarray, ndarray]:
    """Which rows and columns of a slice are drawn, so that millimeters are square, front up."""
    across, down, _ = case.meta.spacing
    _, height, width = case.meta.shape
    lines = max(1, round(WIDTH * height * down / (width * across)))
    rows = ((np.arange(lines) + 0.5) * height / lines).astype(int)
    columns = ((np.arange(WIDTH) + 0.5) * width / WIDTH).astype(int)
    if card.orientation[1] == "A":
        rows = rows[::-1]
    if card.orientation[0] == "R":
        columns = columns[::-1]
    return rows, columns


def save_sheets(path: Path, strips: Sequence[Strip], *, organs: Iterable[str]) -> list[Path]:
    """Write the strips, `CASES` a sheet; the second sheet of a.png is a-2.png, and so on."""
    names, written = list(organs), []
    for start in range(0, len(strips), CASES):
        number = start // CASES + 1
        place = path if number == 1 else path.with_name(f"{path.stem}-{number}{path.suffix}")
        picture = BytesIO()
        draw_sheet(strips[start : start + CASES], organs=names).savefig(picture, dpi=100)
        write_bytes(place, picture.getvalue())
        written.append(place)
    return written


def draw_sheet(strips: Sequence[Strip], *, organs: Sequence[str]) -> "Figure":  # noqa: F821
    """One sheet, two cases beside each other; the title of a case with findings is red."""
    from matplotlib.figure import Figure  # late: it costs a second

    columns = min(2, len(strips))
    lines = -(-len(strips) // columns)
    tallest = max(strip.pixels.shape[0] for strip in strips)
    handles = legend_handles(organs)
    height = lines * (INCH * tallest * 0.8 + 0.3) + 0.6
    rows = -(-len(handles) // len(ORGANS)) + (len(organs) > len(ORGANS))
    figure = Figure(
        figsize=(columns * INCH * SLICES * WIDTH * 0.8, height + LINE * rows), layout="constrained"
    )
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, strip in zip(grid.flat, strips, strict=False):
        axes.imshow(strip.pixels, interpolation="nearest")
        color = "#B00020" if strip.odd else "black"
        axes.set_title(strip.title, fontsize=9, loc="left", color=color, pad=3, parse_math=False)
    legend = figure.legend(
        handles=handles,
        loc="outside lower left",
        ncols=len(ORGANS),
        frameon=False,
        fontsize=6.5,
        handlelength=1.0,
        handletextpad=0.4,
        columnspacing=0.7,
        title=SHARED if len(organs) > len(ORGANS) else None,
        title_fontsize=7,
        alignment="left",
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def legend_handles(organs: Sequence[str]) -> list["Patch"]:  # noqa: F821
    """A patch an organ, in the order of the legend's columns: a column has one color.

    With more organs than the legend has room for, its last line says how many more there are.
    """
    from matplotlib.patches import Patch

    count = len(ORGANS)
    lines = min(-(-len(organs) // count), MOST_LINES)
    handles = []
    for color in range(min(count, len(organs))):
        alike = list(organs[color::count])
        if len(alike) > lines:
            alike = [*alike[: lines - 1], f"and {len(alike) - lines + 1} more"]
        alike = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in alike]
        handles += [Patch(color=organ_color(color), label=name) for name in alike]
        empty = Patch(facecolor="none", edgecolor="none", label=" ")
        handles += [empty] * (lines - len(alike))
    return handles
