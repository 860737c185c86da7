"""Names beside points, placed so that they cover neither each other nor a point."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox, BboxBase
from numpy import ndarray

STEPS = (7.0, 16.0, 28.0, 42.0, 58.0, 76.0, 96.0)  # typographic points from the point
SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
ALIGN = {1: "left", 0: "center", -1: "right"}
RISE = {1: "bottom", 0: "center", -1: "top"}
FAR = 0.5  # square pixels that a name may cover to lie a typographic point nearer
DOT = 4.0  # pixels around a point that a name keeps off


@dataclass(frozen=True)
class Place:
    """An offset from the point in typographic points, and the sides that the text lies on."""

    step: float
    side: tuple[int, int]


PLACES = tuple(Place(step, side) for step in STEPS for side in SIDES)


def name_points(
    axes: Axes,
    points: Float[ndarray, "n 2"],
    names: list[str],
    *,
    bars: Float[ndarray, "n 2"],
) -> None:
    """Write a name beside each point (data coordinates), where it covers least.

    `bars` are the lower and upper ends of a thin line through each point, nan for none; a name
    keeps off points and names before it keeps off those. One that lies far from its point gets a
    line to it. The axes' limits must be final.
    """
    FigureCanvasAgg(axes.figure).draw()
    taken = [around(axes, (x, y), (x, y), pad=DOT) for x, y in points]
    lines = [
        around(axes, (x, low), (x, high), pad=1.0)
        for (x, _), (low, high) in zip(points, bars, strict=True)
        if not np.isnan(low)
    ]
    for index in np.argsort(points[:, 0], kind="stable"):
        others = taken[:index] + taken[index + 1 :] + lines
        taken.append(write(axes, points[index], names[index], others))


def around(axes: Axes, low: tuple[float, float], high: tuple[float, float], *, pad: float) -> Bbox:
    """The box in pixels from one corner in data coordinates to the other, and `pad` beyond."""
    corners = axes.transData.transform([low, high])
    return Bbox([corners[0] - pad, corners[1] + pad])


def write(axes: Axes, point: Float[ndarray, "2"], name: str, taken: list[Bbox]) -> Bbox:
    """Write one name; gives the box it covers."""
    text = axes.annotate(
        name,
        point,
        xytext=(0, 0),
        textcoords="offset points",
        fontsize=8,
        arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": "#808080", "shrinkA": 0},
    )
    text.set_in_layout(False)
    costs = [
        cover(box_at(text, place), taken, within=axes.bbox) + FAR * place.step for place in PLACES
    ]
    return box_at(text, PLACES[int(np.argmin(costs))])


def box_at(text: Annotation, place: Place) -> Bbox:
    """Move the text there; gives the box it then covers."""
    across, up = place.side
    shorter = place.step / np.hypot(across, up)
    text.set_position((across * shorter, up * shorter))
    text.set(horizontalalignment=ALIGN[across], verticalalignment=RISE[up])
    text.arrow_patch.set_visible(place.step > STEPS[0])
    renderer = text.figure.canvas.get_renderer()
    text.update_positions(renderer)
    return Text.get_window_extent(text, renderer)  # without the line to the point


def cover(box: Bbox, taken: list[Bbox], *, within: BboxBase) -> float:
    """How many square pixels of others, or of the outside, a box covers."""
    shared = [Bbox.intersection(box, other) for other in taken]
    inside = Bbox.intersection(box, within)
    outside = box.width * box.height - (inside.width * inside.height if inside else 0)
    return outside + sum(part.width * part.height for part in shared if part)
