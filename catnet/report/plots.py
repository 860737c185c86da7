"""Pictures of tidy rows: a curve over a setting, accuracy against cost, boxes of patients."""

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from catnet.errors import UserError
from catnet.report.boxes import boxes
from catnet.report.labels import name_points
from catnet.report.patients import (
    OVERALL,
    cost,
    networks,
    varied_settings,
)
from catnet.report.statistics import describe
from catnet.report.style import (
    DASHES,
    GREY,
    STYLE,
    WIDTH,
    color_of,
    number_ticks,
    spread_wide,
    svg,
    wrapped,
)

__all__ = ["accuracy_against_cost", "boxes", "curve", "svg"]

COSTS = {"episode_seconds": "time an episode (s)", "memory_mib": "memory (MiB)"}
DICE = "Dice (%), mean over organs"


@rc_context(STYLE)
def curve(rows: pd.DataFrame) -> Figure:
    """Dice over one numeric setting, a line a protocol with its bootstrap band; costs below.

    Raises `UserError` unless exactly one column of numbers varies, with one variant a value.
    """
    setting = numeric_setting(rows)
    place = networks(rows).groupby("variant", sort=False)[setting].first().astype(float)
    place = place.sort_values()
    costs = {name: cost(rows, name) for name in COSTS}
    costs = {name: values for name, values in costs.items() if len(values)}
    figure = Figure(figsize=(WIDTH, 5.6 if costs else 3.8), layout="constrained")
    mosaic = [["dice"] * max(len(costs), 1)] + ([list(costs)] if costs else [])
    panels = figure.subplot_mosaic(mosaic, height_ratios=[2.4, 1][: len(mosaic)])
    described = describe(rows)
    described = described[described["organ"] == OVERALL]
    for number, (protocol, part) in enumerate(described.groupby("protocol", sort=False)):
        draw_protocol(panels["dice"], part, place, name=protocol, color=color_of(number))
    panels["dice"].set_ylabel(DICE)
    for name, values in costs.items():
        known = place[place.index.isin(values.index)]
        panels[name].plot(known, values[known.index], color=GREY, marker="o", markersize=4)
        panels[name].set_ylabel(COSTS[name])
        panels[name].set_ylim(0, 1.1 * values.max())
    figure.legend(loc="outside upper left", ncols=4)
    for panel in panels.values():
        panel.set_xlabel(setting)
        number_ticks(panel, sorted(set(place)))
    return figure


def has_curve(rows: pd.DataFrame) -> bool:
    """Whether one setting varies, it is a number, and each of its values is one variant."""
    varies, numeric = varying(rows)
    if len(varies) != 1 or varies[0] not in numeric:
        return False
    return bool(networks(rows).groupby(varies[0])["variant"].nunique().max() == 1)


def varying(rows: pd.DataFrame) -> tuple[list[str], list[str]]:
    """The settings that take several values (or the numeric ones), and those that are numeric."""
    tested = networks(rows)
    numeric = [
        name
        for name in varied_settings(rows)
        if pd.api.types.is_numeric_dtype(tested[name]) and tested[name].dtype != bool
    ]
    varies = [name for name in varied_settings(rows) if tested[name].nunique() > 1]
    return varies or numeric, numeric


def numeric_setting(rows: pd.DataFrame) -> str:
    """The one column of numbers that varies."""
    tested = networks(rows)
    varies, numeric = varying(rows)
    if len(varies) != 1 or varies[0] not in numeric:
        raise UserError(
            f"a curve needs one setting of numbers, and here vary {', '.join(varies) or 'none'}; "
            "draw boxes instead"
        )
    if tested.groupby(varies[0])["variant"].nunique().max() > 1:
        raise UserError(f"several variants have the same {varies[0]}; a curve cannot show them")
    return varies[0]


def draw_protocol(
    axes: Axes, part: pd.DataFrame, place: pd.Series, *, name: str, color: str
) -> None:
    """One protocol's curve, its band, and copying as a dashed line."""
    lines = networks(part).set_index("variant").loc[place.index]
    axes.plot(place, lines["mean"], color=color, marker="o", markersize=5, label=name)
    axes.fill_between(place, lines["low"], lines["high"], color=color, alpha=0.2, linewidth=0)
    if lines["low"].notna().any() and len(place) == 1:
        axes.vlines(place, lines["low"], lines["high"], color=color, linewidth=1.5)
    draw_copy(axes, part, name=name, color=color)


def draw_copy(axes: Axes, part: pd.DataFrame, *, name: str, color: str) -> None:
    """Copying, where it is one for all variants."""
    floor = part[(part["model"] == "copy") & (part["variant"] == "")]
    for mean in floor["mean"]:
        style = {"color": color, "linewidth": 1, "linestyle": DASHES["copy"]}
        axes.axhline(mean, label=f"{name}, copy", **style)


@rc_context(STYLE)
def accuracy_against_cost(rows: pd.DataFrame) -> Figure:
    """Mean Dice with its interval against the time of an episode, a named point a variant.

    A panel a protocol. Raises `UserError` where no run measured `episode_seconds`.
    """
    seconds = cost(rows, "episode_seconds")
    if seconds.empty:
        raise UserError("the rows hold no episode_seconds; train again, or leave this picture out")
    described = describe(rows)
    parts = described[described["organ"] == OVERALL].groupby("protocol", sort=False)
    height = 2.6 + 0.08 * len(seconds)
    figure = Figure(figsize=(WIDTH, height * parts.ngroups), layout="constrained")
    panels = figure.subplots(parts.ngroups, sharex=True, squeeze=False)[:, 0]
    for number, (panel, (protocol, part)) in enumerate(zip(panels, parts, strict=True)):
        lines = networks(part).set_index("variant")
        lines = lines[lines.index.isin(seconds.index)]
        draw_points(panel, seconds[lines.index], lines, color=color_of(number))
        draw_copy(panel, part, name=protocol, color=color_of(number))
        panel.set(title=protocol, ylabel=DICE)
        panel.margins(x=0.12, y=0.15)
        if spread_wide(list(seconds)):
            panel.set_xscale("log")
        else:
            panel.set_xlim(0, 1.15 * seconds.max())  # what differs by noise alone stays together
    panels[-1].set_xlabel(COSTS["episode_seconds"])
    if figure.axes[0].get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=4)
    for panel, (_, part) in zip(panels, parts, strict=True):
        lines = networks(part).set_index("variant")
        lines = lines[lines.index.isin(seconds.index)]
        name_points(
            panel,
            np.stack([seconds[lines.index], lines["mean"]], axis=1),
            [wrapped(name, width=28) for name in lines.index],
            bars=lines[["low", "high"]].to_numpy(),
        )
    return figure


def draw_points(axes: Axes, seconds: pd.Series, lines: pd.DataFrame, *, color: str) -> None:
    """The points, and their intervals as thin bars."""
    axes.vlines(seconds, lines["low"], lines["high"], color=color, alpha=0.35, linewidth=1)
    axes.plot(seconds, lines["mean"], "o", color=color, markersize=6)
