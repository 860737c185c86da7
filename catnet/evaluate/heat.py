"""Attention as pictures: where a position looks, as heat over the slice that it looks at.

Pictures stand front up. A position is told by its row and column in the picture, both from 0, the
first row on top, as by any tool for images; `turned` goes from there to an array and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np

from catnet.evaluate.attend import Attention, Look, Place
from catnet.evaluate.scene import Slice
from catnet.files import write_bytes
from catnet.pictures import PREDICTED, TRUTH

MARK = "#009E73"  # green of Okabe and Ito, beside the two of the contours
UNIT = "weight, times the even share"
LEAST = 8.0  # times the even share: what the scale reaches at least, so that an even map looks even


@dataclass(frozen=True)
class Row:
    """One line of the picture: a slice, its contours by color, the place, and the looks at it."""

    name: str
    title: str
    image: Slice
    contours: dict[str, Slice]
    place: Place | None
    looks: tuple[Look, ...]


def save_attention(path: Path, attention: Attention, *, names: tuple[str, str], flip: bool) -> None:
    """Write the picture as PNG; `names` are the mechanisms', `flip` is as in `pictures`."""
    file = BytesIO()
    draw_attention(attention, names=names, flip=flip).savefig(file, format="png", dpi=130)
    write_bytes(path, file.getvalue())


def turned(place: Place, *, rows: int, flip: bool) -> Place:
    """A position of the picture in the array, or of the array in the picture."""
    row, column = place
    return (rows - 1 - row if flip else row), column


def draw_attention(attention: Attention, *, names: tuple[str, str], flip: bool) -> "Figure":  # noqa: F821
    """A line for the query slice and one for the support slice, where there are looks at it."""
    from matplotlib.figure import Figure  # late: it costs a second, and most commands draw nothing

    rows = [row for row in rows_of(attention, names, flip=flip) if row.looks]
    columns = 1 + len(attention.itself)
    figure = Figure(figsize=(2.1 * columns + 1.2, 2.4 * len(rows) + 0.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08)
    figure.suptitle(title_of(attention, rows[0].place), fontsize=9)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    top = max([LEAST, *(float(abs(one.heat).max()) for row in rows for one in row.looks)])
    for line, row in zip(grid, rows, strict=True):
        draw_slice(line[0], row)
        heat = draw_looks(line[1:], row, top=top)
        if any(one.heat.any() for one in row.looks):
            bar = figure.colorbar(heat, ax=list(line[1:]), shrink=0.9, aspect=16, pad=0.01)
            bar.set_label(UNIT, fontsize=7)
            bar.ax.tick_params(labelsize=7)
            bar.ax.set_facecolor("0.15")
    return figure


def title_of(attention: Attention, place: Place) -> str:
    """What is to be seen, and what is not."""
    scene, (row, column) = attention.scene, place
    true = "blue" if scene.truth.any() else "not on the slice"
    positive = attention.predicted > 0.5
    predicted = "everywhere" if positive.all() else "orange" if positive.any() else "nothing"
    return (
        f"Where row {row}, column {column} looks (green cross); true {scene.organ}: {true}, "
        f"predicted: {predicted}"
    )


def rows_of(attention: Attention, names: tuple[str, str], *, flip: bool) -> tuple[Row, Row]:
    """The line of the query slice and that of the support slice, front up."""
    scene = attention.scene
    up = np.flipud if flip else np.asarray
    itself, across = (
        tuple(replace(one, heat=up(one.heat)) for one in looks)
        for looks in (attention.itself, attention.across)
    )
    query = Row(
        f"self: {names[0]}",
        f"query {scene.query.name}, slice {scene.number}",
        up(scene.image),
        {TRUTH: up(scene.truth), PREDICTED: up(attention.predicted)},
        turned(attention.place, rows=len(scene.image), flip=flip),
        itself,
    )
    support = Row(
        f"cross: {names[1]}",
        f"support {scene.support.name}, slice {scene.support_number}",
        up(scene.support_image),
        {TRUTH: up(scene.support_mask)},
        None,
        across,
    )
    return query, support


def draw_slice(axes: "Axes", row: Row) -> None:  # noqa: F821
    """The slice with all contours; along its edges the numbers that `--at` takes."""
    draw_base(axes, row, dimmed=1.0)
    for color, mask in row.contours.items():
        draw_contour(axes, mask, color=color, width=1.2)
    covered = f"organ on {100 * row.contours[TRUTH].mean():.1f} % of it"
    axes.set_title(f"{row.title}\n{covered}", fontsize=8)
    axes.set_ylabel(row.name, fontsize=9)
    axes.tick_params(labelsize=6, length=2, pad=1)
    if row.place is None:
        axes.set_xticks([])
        axes.set_yticks([])


def draw_looks(line: Sequence["Axes"], row: Row, *, top: float) -> "ScalarMappable":  # noqa: F821
    """Every round's heat on the slice, on one scale; returns what the color bar shows."""
    height, width = row.image.shape
    norm, colors = scale_of(row.looks, top=top)
    for number, (axes, one) in enumerate(zip(line, row.looks, strict=True), start=1):
        draw_base(axes, row, dimmed=1.6)
        axes.set_axis_off()
        heat = axes.imshow(
            one.heat if one.heat.any() else np.full_like(one.heat, np.nan),
            cmap=colors,
            norm=norm,
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
            interpolation="nearest",
        )
        draw_contour(axes, row.contours[TRUTH], color=TRUTH, width=0.8)
        axes.set_title(f"round {number}\n{remark(one)}", fontsize=8)
    return heat


def scale_of(looks: Sequence[Look], *, top: float) -> tuple["Normalize", "Colormap"]:  # noqa: F821
    """Which weight is which color: from 0 to `top`, in the whole picture.

    It grows as a root: one round that looks at a single token would leave the others dark. Where
    there are negative weights it goes from -top to top, evenly.
    """
    from matplotlib.colors import Normalize, PowerNorm

    if min(float(one.heat.min()) for one in looks) < 0:
        return Normalize(-top, top), signed()
    return PowerNorm(0.5, 0.0, top), clear_to_bright()


def draw_base(axes: "Axes", row: Row, *, dimmed: float) -> None:  # noqa: F821
    """The grey slice, darker by a factor so that heat on it keeps its color, and the place."""
    low, high = float(row.image.min()), float(row.image.max())
    white = low + dimmed * (high - low)
    axes.imshow(row.image, cmap="gray", vmin=low, vmax=white, interpolation="nearest")
    if row.place is not None:
        at_row, at_column = row.place
        axes.plot(
            at_column, at_row, "+", color="white", markersize=11, markeredgewidth=3.0, zorder=3
        )
        axes.plot(at_column, at_row, "+", color=MARK, markersize=10, markeredgewidth=1.6, zorder=4)


def draw_contour(axes: "Axes", mask: Slice, *, color: str, width: float) -> None:  # noqa: F821
    """The edge of a mask, where it has one."""
    if mask.min() < 0.5 < mask.max():
        axes.contour(mask, levels=[0.5], colors=[color], linewidths=width)


def remark(one: Look) -> str:
    """How much of the weight lies on the organ, or why that cannot be told."""
    if not one.heat.any():
        return "outside of the mask: nothing"
    if one.heat.min() < 0:
        return "some weights are negative"
    return "" if np.isnan(one.on_organ) else f"{100 * one.on_organ:.1f} % of the weight on it"


def clear_to_bright() -> "Colormap":  # noqa: F821
    """Clear to opaque, dark to bright: the slice shows where there is little weight."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    strength = np.linspace(0, 1, 256)
    colors = colormaps["inferno"](strength)
    colors[:, 3] = 0.1 + 0.8 * strength
    return ListedColormap(colors)


def signed() -> "Colormap":  # noqa: F821
    """Purple below zero, orange above, clear between, for maps with negative weights."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    strength = np.linspace(-1, 1, 256)
    colors = colormaps["PuOr_r"](0.5 + 0.5 * strength)
    colors[:, 3] = 0.1 + 0.8 * np.abs(strength)
    return ListedColormap(colors)
