"""A page about runs that nobody trained."""

from io import BytesIO

import numpy as np
from matplotlib.figure import Figure
from synthetic_views import ORGANS, make_views

from catnet.report.grid import Cell, Column, Grid, Line
from catnet.report.page import Page, Plot
from catnet.report.recorded import Recorded
from catnet.views import save_views


def make_dice(variants):
    """A line a variant under both protocols, above it the floors; the last two are the best."""
    generator = np.random.default_rng(0)
    columns = [Column(protocol, name) for protocol in ("EP1", "EP2") for name in (*ORGANS, "mean")]
    lines = []
    for place, name in enumerate(("copy", "untrained", *variants)):
        level = (35, 8)[place] if place < 2 else 50 + 2 * place
        rank = {len(variants) + 1: 1, len(variants): 2}.get(place)
        values = (level + generator.normal(size=len(columns)) * 3).tolist()
        cells = tuple(Cell(f"{v:.1f}±9.9", v, v - 4, v + 3, rank) for v in values)
        lines.append(Line((name,), place < 2, cells))
    return Grid(("variant",), tuple(columns), tuple(lines), "Dice in %, mean±sd over patients")


def make_comparison(variants):
    """What the tests say of every variant, with words in the last column."""
    columns = tuple(Column("", name) for name in ("difference", "Holm p", "note"))
    lines = [
        Line(
            (protocol, name, variants[-1]),
            False,
            (Cell("-1.5", -1.5, -3.0, 0.1), Cell("-"), Cell("under 6 patients: no test")),
        )
        for protocol in ("EP1", "EP2")
        for name in variants[:-1]
    ]
    heads = ("protocol", "variant", "reference")
    return Grid(heads, columns, tuple(lines), "Differences in Dice, in points")


def make_plot(kind):
    """An SVG as the report draws them: text as text, ids of matplotlib's own."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    x = np.arange(6)
    if kind == "boxes":
        axes.boxplot([np.random.default_rng(n).normal(60 + n, 5, 20) for n in x])
    else:
        axes.plot(x, 50 + 4 * np.sqrt(x), "o-", color="#0072B2", label="EP1", clip_on=True)
        axes.fill_between(x, 46 + 4 * np.sqrt(x), 54 + 4 * np.sqrt(x), color="#0072B2", alpha=0.2)
        axes.legend(frameon=False, labelcolor="#808080")
    axes.set_xlabel(kind, color="#808080")
    axes.tick_params(colors="#808080")
    for spine in axes.spines.values():
        spine.set_color("#808080")
    file = BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue().decode()


def make_page(variants):
    def plots(kind, caption):
        return (Plot(caption, make_plot(kind)),)

    lines = [
        Line((f"run-{n}f00ba4c2d", name, "0", "0", "c95234c0"), False, ())
        for n, name in enumerate(variants)
    ]
    runs = Grid(("run", "variant", "fold", "seed", "commit"), (), tuple(lines), "Runs")
    return Page(
        title="catnet report, chaos_t2, setting 1",
        question="How many rounds of cross attention does segmentation need?",
        answer=(
            f"{variants[-1]} is best under EP1 with a mean Dice of 66.1 % (95 % interval 60.2 to "
            "71.4), 1.2 points above the runner-up, from which 20 patients, 5 folds and 1 seed do "
            "not tell it apart (Holm-corrected p = 0.31); under EP2 the order is the same."
        ),
        cautions=("One seed: how much luck decides is not known.",),
        dice=make_dice(variants),
        comparisons=(make_comparison(variants),),
        curves=plots("rounds", "Dice over the number of rounds; bands are 95 % intervals."),
        cost=plots("time", "Mean Dice against the time of an episode."),
        boxes=plots("boxes", "Dice per organ; every dot is a patient."),
        provenance=(
            ("commit", "c95234c0a1b2, clean"),
            ("versions", "catnet 0.1.0, torch 2.8.0, numpy 2.1"),
            ("hardware", "x86_64, 2 cores"),
            ("command", "catnet report rounds-0123456789 rounds-1234567890 -o report"),
        ),
        sources=(runs,),
    )


def record_cases(folder, variants, *, queries, shown=12, **options):
    """Files of recorded views, as evaluations leave them."""
    recorded = []
    for number, variant in enumerate(variants):
        place = folder / f"{number}"
        for query in range(1, queries + 1):
            support = f"{30 + query % 5}"
            views = make_views(str(query), support, seed=number, shown=shown, **options)
            save_views(place / f"{query}_by_{support}.npz", views)
        recorded.append(Recorded(variant, place))
    return recorded
