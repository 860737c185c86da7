"""Slices with contours, as pictures: the way a radiologist looks at them, front up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catnet.files import write_bytes

TRUTH, PREDICTED = "#56B4E9", "#E69F00"  # blue and orange of Okabe and Ito, for every eye
LINE = {TRUTH: "solid", PREDICTED: "dashed"}
# all of theirs but black, those that are seen best on grey first
ORGANS = ("#E69F00", "#56B4E9", "#CC79A7", "#009E73", "#F0E442", "#D55E00", "#0072B2")


def organ_color(place: int) -> str:
    """The color of organ number `place`, from 0; they come again after seven."""
    return ORGANS[place % len(ORGANS)]


@dataclass(frozen=True)
class Panel:
    """One slice with the contours of masks on it, by color."""

    title: str
    image: Float[ndarray, "h w"]
    contours: dict[str, Float[ndarray, "h w"]] = field(default_factory=dict)


def draw_panels(rows: Sequence[Sequence[Panel]], *, flip: bool, title: str = "") -> "Figure":  # noqa: F821
    """A figure of rows of panels; `flip` where a slice's rows run from back to front.

    Above them stand the title and what the two contours are.
    """
    from matplotlib.figure import Figure  # late: it costs a second, and most commands draw nothing

    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(2.2 * columns, 2.4 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, panel in zip(axes_row, row, strict=False):
            turn = np.flipud if flip else np.asarray
            axes.imshow(turn(panel.image), cmap="gray", interpolation="nearest")
            for color, mask in panel.contours.items():
                if mask.min() < 0.5 < mask.max():
                    axes.contour(
                        turn(mask),
                        levels=[0.5],
                        colors=[color],
                        linewidths=1.2,
                        linestyles=LINE[color],
                    )
            # y is where a title lies anyway; given, its place is not sought among the hidden ticks
            axes.set_title(panel.title, fontsize=8, y=1.0)
    if title:
        figure.suptitle(f"{title}; truth blue, solid; prediction orange, dashed", fontsize=8)
    return figure


def save_panels(
    path: Path, rows: Sequence[Sequence[Panel]], *, flip: bool, title: str = ""
) -> None:
    """Write the figure as PNG."""
    picture = BytesIO()
    draw_panels(rows, flip=flip, title=title).savefig(picture, dpi=110)
    write_bytes(path, picture.getvalue())
