"""The question of an experiment, answered in one sentence that claims no more than was tested."""

from collections.abc import Sequence
from math import isnan

import pandas as pd

from catnet.report.patients import OVERALL, networks
from catnet.report.statistics import compare, describe

COPY = "copy"


def answer(rows: pd.DataFrame, varied: str | Sequence[str]) -> str:
    """Which variant has the best mean Dice, by how much, and whether that is told apart.

    Under each protocol the best is set beside the runner-up; one variant alone beside copying the
    support mask. `varied` are the settings that the variants vary, in words.
    """
    described = describe(rows)
    overall = described[described["organ"] == OVERALL]
    means = networks(overall)
    alone = means["variant"].nunique() == 1
    compared = compare(rows, reference=COPY if alone and COPY in set(rows["model"]) else None)
    compared = compared[compared["organ"] == OVERALL]
    clauses = [
        clause(
            part.sort_values("mean", ascending=False, kind="stable"),
            compared[compared["protocol"] == protocol],
        )
        for protocol, part in means.groupby("protocol", sort=False)
    ]
    text = f"{opening(varied, means)}{'; '.join(clauses)}{caution(means)}."
    return text[0].upper() + text[1:]


def opening(varied: str | Sequence[str], means: pd.DataFrame) -> str:
    """What was asked."""
    settings = [varied] if isinstance(varied, str) else list(varied)
    count = means["variant"].nunique()
    if count == 1 or not settings:
        return ""
    return f"Of the {count} variants of {' and '.join(settings)}, by mean Dice: "


def clause(ranked: pd.DataFrame, compared: pd.DataFrame) -> str:
    """The best of one protocol, and what it is set beside."""
    best = ranked.iloc[0]
    name = best["variant"] or best["model"]
    verb = "is best with" if len(ranked) > 1 else "reaches"
    text = f"under {best['protocol']} {name} {verb} {best['mean']:.1f} % {spread(best)}"
    other = ranked.iloc[1]["variant"] if len(ranked) > 1 else best["variant"]
    lines = compared[compared["variant"] == other]
    if lines.empty:
        return f"{text}, with nothing to set it beside"
    line = lines.iloc[0]
    sign = -1 if len(ranked) > 1 else 1  # the line is the runner-up minus the best
    beside = f"the runner-up {other}" if len(ranked) > 1 else "copying the support mask"
    if isnan(line["difference"]):
        return f"{text}, not to be compared with {beside}: no support and query are common to both"
    return f"{text}, {distance(line, sign=sign)} {beside}, {verdict(line)}"


def spread(line: pd.Series) -> str:
    """Interval and counts of a mean."""
    counts = ", ".join(
        f"{line[name]} {name if line[name] != 1 else name[:-1]}"
        for name in ("patients", "folds", "seeds")
    )
    if isnan(line["low"]):
        return f"(no interval: {counts})"
    return f"(95 % interval {line['low']:.1f} to {line['high']:.1f}; {counts})"


def distance(line: pd.Series, *, sign: int) -> str:
    """How far the best lies above the other one, on what both were tested on."""
    low, high = sorted(sign * line[name] for name in ("low", "high"))
    within = "" if isnan(low) else f" ({low:+.1f} to {high:+.1f})"
    apart = sign * line["difference"]
    return f"{abs(apart):.1f} points{within} {'above' if apart >= 0 else 'below'}"


def verdict(line: pd.Series) -> str:
    """Whether the two are told apart, or why that cannot be said."""
    if line["note"]:
        return f"which tells nothing ({line['note']})"
    told = "is told apart" if line["told_apart"] else "cannot be told apart"
    return f"from which it {told} (Holm p {number(line['p_holm'])})"


def number(p: float) -> str:
    """`0.031`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def caution(means: pd.DataFrame) -> str:
    """What one fold or one seed leaves open."""
    once = [name for name in ("fold", "seed") if (means[f"{name}s"] == 1).any()]
    if not once:
        return ""
    open_ends = {"fold": "other patients", "seed": "another training"}
    doubt = " or ".join(open_ends[name] for name in once)
    return f"; with one {' and one '.join(once)}, {doubt} may change this"
