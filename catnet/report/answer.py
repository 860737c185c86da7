"""The question of an experiment, answered in one sentence that claims no more than was tested."""

from collections.abc import Sequence
from math import isnan

import pandas as pd

from catnet.report.patients import OVERALL, networks, select
from catnet.report.statistics import best_variant, compare, describe

COPY = "copy"


def answer(rows: pd.DataFrame, varied: str | Sequence[str]) -> str:
    """Which variant has the best mean Dice, by how much, and whether that is told apart.

    Under each protocol the best is set beside the runner-up and beside copying the support mask.
    `varied` are the settings that the variants vary, in words.
    """
    described = describe(rows)
    means = networks(described[described["organ"] == OVERALL])
    compared, copied = overall(compare(rows)), beside_copying(rows)
    clauses = []
    for protocol, part in means.groupby("protocol", sort=False):
        ranked = part.sort_values("mean", ascending=False, kind="stable")
        here = (frame[frame["protocol"] == protocol] for frame in (compared, copied))
        clauses.append(clause(ranked, *here))
    text = f"{opening(varied, means)}{'; '.join(clauses)}{caution(means)}."
    return text[0].upper() + text[1:]


def warnings(rows: pd.DataFrame) -> tuple[str, ...]:
    """What is said where training lost against copying the support mask, or was not set beside it.

    The best of a protocol is meant, on the supports, queries and organs that both have.
    """
    copied = beside_copying(rows)
    if copied.empty:
        return (
            "Copying the support mask was not evaluated; whether training beats it is unknown.",
        )
    best = {
        protocol: best_variant(part)
        for protocol, part in select(rows, "dice").groupby("protocol", sort=False)
    }
    lost = copied[copied["variant"] == copied["protocol"].map(best)]
    lost = list(lost[lost["difference"] < 0]["protocol"])
    if not lost:
        return ()
    which = "the best variant" if rows["variant"].nunique() > 1 else "the network"
    return (
        f"Under {' and '.join(lost)} {which} lies below copying the support mask, which needs no "
        "training.",
    )


def overall(compared: pd.DataFrame) -> pd.DataFrame:
    """The lines of the mean over organs."""
    return compared[compared["organ"] == OVERALL]


def beside_copying(rows: pd.DataFrame) -> pd.DataFrame:
    """Every variant against copying, over organs; no line where copying was not evaluated."""
    known = COPY in set(rows["model"])
    return overall(compare(rows, reference=COPY) if known else compare(rows)[:0])


def opening(varied: str | Sequence[str], means: pd.DataFrame) -> str:
    """What was asked."""
    settings = [varied] if isinstance(varied, str) else list(varied)
    count = means["variant"].nunique()
    if count == 1 or not settings:
        return ""
    return f"Of the {count} variants of {' and '.join(settings)}, by mean Dice: "


def clause(ranked: pd.DataFrame, compared: pd.DataFrame, copied: pd.DataFrame) -> str:
    """The best of one protocol, and what it is set beside."""
    best = ranked.iloc[0]
    several = len(ranked) > 1
    verb = "is best with" if several else "reaches"
    text = f"under {best['protocol']} {best['variant'] or best['model']} {verb} "
    text += f"{best['mean']:.1f} % {spread(best)}"
    floor = copied[copied["variant"] == best["variant"]]
    found, said = [], ""
    if several:
        other = ranked.iloc[1]["variant"]
        line = compared[compared["variant"] == other].iloc[0]
        found.append(beside(line, what=f"the runner-up {other}", sign=-1))
        said = line["note"]
    for _, line in floor.iterrows():
        found.append(beside(line, what="copying the support mask", sign=1, said=said))
    return f"{text}, {', and '.join(found) or 'with nothing to set it beside'}"


def beside(line: pd.Series, *, what: str, sign: int, said: str = "") -> str:
    """How far the best lies from something, `sign` times the line's difference, and how surely."""
    if isnan(line["difference"]):
        return f"not to be compared with {what}: no support and query are common to both"
    sure = "which tells nothing either" if said and line["note"] == said else verdict(line)
    return f"{distance(line, sign=sign)} {what}, {sure}"


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
