"""A picture of every curve: cost over what grows, and the power law fitted to its upper half."""

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from catnet.bench.fits import Curve
from catnet.report.style import STYLE, WIDTH, color_of, number_ticks


@rc_context(STYLE)
def draw_curve(curve: Curve) -> Figure:
    """The quickest repetition as a line, all as points, the fit dashed; log axes where they can."""
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    x, fit = np.array(curve.places), curve.fit
    for place, sample in zip(curve.places, curve.samples, strict=True):
        axes.plot([place] * len(sample), sample, "o", color=color_of(0), alpha=0.3, markersize=3)
    axes.plot(x, curve.quickest, color=color_of(0), marker="o", markersize=5, label="quickest")
    upper = x[-fit.points :]
    level = np.log(curve.quickest[-fit.points :]) - fit.exponent * np.log(upper)
    law = np.exp(level.mean()) * upper**fit.exponent
    label = f"fit: exponent {fit.exponent:.2f} ({fit.low:.2f} to {fit.high:.2f})"
    axes.plot(upper, law, color=color_of(1), linestyle=(0, (4, 2)), label=label)
    number_ticks(axes, [float(place) for place in curve.places])
    if axes.get_xscale() == "log":
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set(title=f"{curve.cost}: {curve.because}", xlabel=curve.over, ylabel="seconds")
    figure.legend(loc="outside upper left", ncols=2)
    return figure
