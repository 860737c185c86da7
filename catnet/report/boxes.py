"""Dice of every patient, a panel a protocol and organ, a box a variant."""

from math import ceil

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cbook import boxplot_stats
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy import ndarray

from catnet.report.inference import mean_of_organs
from catnet.report.patients import (
    FLOORS,
    OVERALL,
    distinct,
    merge_floors,
    networks,
    per_patient,
    select,
)
from catnet.report.style import DASHES, GREY, STYLE, WIDTH, color_of, wrapped

ACROSS = 5  # panels side by side
LINE = 0.15  # inches of a line of a name


@rc_context(STYLE)
def boxes(rows: pd.DataFrame) -> Figure:
    """Box plots over patients, each patient a dot at the same height in every box.

    Boxes are quartiles with the median, whiskers reach 1.5 times as far. Lines are the floors'
    means: across a panel where all variants share the floor, else a piece at each variant.
    """
    chosen = merge_floors(select(rows, "dice"))
    variants = distinct(networks(chosen)["variant"])
    names = [wrapped(name, width=26) for name in variants]
    protocols = distinct(chosen["protocol"])
    organs = [*distinct(chosen["organ"]), OVERALL]
    places = [(protocol, organ) for protocol in protocols for organ in organs]
    across = min(ACROSS, len(organs))
    down = ceil(len(places) / across)
    tall = LINE * len(names) * max(max(name.count("\n") for name in names) + 1.3, 1.8) + 0.6
    figure = Figure(figsize=(WIDTH, tall * down + 0.3), layout="constrained")
    panels = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for panel, (protocol, organ) in zip(panels, places, strict=False):
        part = chosen[chosen["protocol"] == protocol]
        part = part if organ == OVERALL else part[part["organ"] == organ]
        draw_boxes(panel, part, variants, color=color_of(protocols.index(protocol)))
        panel.set_title(f"{protocol}, {organ}")
    for panel in panels[len(places) :]:
        panel.set_visible(False)
    for panel in panels[::across]:
        panel.set_yticks(range(len(variants)), names, fontsize=8)
    panels[0].set_ylim(len(variants) - 0.5, -0.5)
    figure.supxlabel("Dice (%)", fontsize=9)
    name_floors(figure, chosen)
    return figure


def name_floors(figure: Figure, rows: pd.DataFrame) -> None:
    """The legend of the lines."""
    found = [name for name in FLOORS if name in set(rows["model"])]
    handles = [Line2D([], [], color=GREY, linestyle=DASHES[name], label=name) for name in found]
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=2)


def draw_boxes(axes: Axes, rows: pd.DataFrame, variants: list[str], *, color: str) -> None:
    """One panel; a variant without the organ has an empty place."""
    each = per_patient(networks(rows), keys=["variant"]).mean(axis=1)
    queries = distinct(rows["query"])
    offsets = pd.Series(np.linspace(-0.25, 0.25, max(len(queries), 2))[: len(queries)], queries)
    for height, variant in enumerate(variants):
        if variant not in each.index.get_level_values("variant"):
            continue
        values = each[variant]
        draw_box(axes, values.to_numpy(), height=height, color=color)
        where = height + offsets[values.index]
        axes.plot(values, where, "o", color=color, markersize=3, alpha=0.6, markeredgewidth=0)
    draw_floors(axes, rows, variants)
    axes.grid(visible=False, axis="y")


def draw_box(axes: Axes, values: Float[ndarray, " n"], *, height: int, color: str) -> None:
    """Quartiles, median and whiskers, lying."""
    found = boxplot_stats(values)[0]
    low, high = found["q1"], found["q3"]
    box = {"facecolor": "none", "edgecolor": color, "linewidth": 1}
    axes.barh(height, high - low, left=low, height=0.7, **box)
    axes.hlines([height] * 2, [found["whislo"], high], [low, found["whishi"]], color=color, lw=1)
    axes.vlines(found["med"], height - 0.35, height + 0.35, color=color, linewidth=2.5)


def draw_floors(axes: Axes, rows: pd.DataFrame, variants: list[str]) -> None:
    """The floors' means, over the whole panel or a piece at a variant."""
    for model, part in rows[rows["model"].isin(FLOORS)].groupby("model", sort=False):
        for variant, values in part.groupby("variant", sort=False):
            mean = mean_of_organs(per_patient(values, keys=[]).to_numpy())
            style = {"color": GREY, "linewidth": 1.2, "linestyle": DASHES[model]}
            if variant == "":
                axes.axvline(mean, **style)
            elif variant in variants:
                height = variants.index(variant)
                axes.vlines(mean, height - 0.45, height + 0.45, **style)
