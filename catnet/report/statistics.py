"""Means of variants, and whether two are told apart, with patients as the unit.

Every number first becomes one a patient (`catnet.report.patients`). Intervals and tests take the
trained networks as they are: what another training would give is told only by the sd over seeds.
Rows should have passed `catnet.report.comparable.check_comparable`.
"""

from collections.abc import Iterator
from math import ceil

import numpy as np
import pandas as pd

from catnet.errors import UserError
from catnet.report.inference import (
    DIGITS,
    FEWEST_FOR_TEST,
    LEVEL,
    holm,
    interval,
    mean_of_organs,
    signed_rank,
)
from catnet.report.patients import (
    FLOORS,
    OVERALL,
    PAIR,
    distinct,
    merge_floors,
    networks,
    per_patient,
    select,
)

DESCRIBED = (
    *("variant", "model", "protocol", "organ", "mean", "low", "high"),
    *("sd_cases", "sd_folds", "sd_seeds", "patients", "folds", "seeds"),
)
COMPARED = (
    *("protocol", "variant", "reference", "organ", "difference", "low", "high", "p", "p_holm"),
    *("effect", "patients", "differing", "pairs", "dropped", "told_apart", "note"),
)


def describe(rows: pd.DataFrame, metric: str = "dice") -> pd.DataFrame:
    """A line a (variant, model, protocol, organ), and one for the organs' `mean`; floors first.

    mean            over patients; of the organs: each organ's mean over the patients who have it,
                    then the mean of those, so a patient who lacks an organ still counts in others
    low, high       bootstrap interval of the mean, 95 %, over patients; nan below 3
    sd_cases        over patients; for `mean` over each one's mean of the organs he has
    sd_folds        of the folds' means; nan for one fold
    sd_seeds        of the seeds' means, on the folds that every seed has; nan for one seed
    patients, folds, seeds   how many

    A floor that all variants agree on has the variant "" and stands once.
    """
    chosen = merge_floors(select(rows, metric))
    keys = ["variant", "model", "protocol"]
    lines = [
        dict(zip(keys, names, strict=True)) | line
        for names, part in chosen.groupby(keys, sort=False)
        for line in describe_organs(part)
    ]
    return pd.DataFrame(lines, columns=list(DESCRIBED))


def describe_organs(rows: pd.DataFrame) -> Iterator[dict[str, object]]:
    """The lines of one variant, model and protocol: every organ, then their mean."""
    table = per_patient(rows, keys=[])
    folds = per_patient(rows, keys=["fold"])
    seeds = per_patient(on_common_folds(rows), keys=["seed"])
    counts = {"folds": rows["fold"].nunique(), "seeds": rows["seed"].nunique()}
    for organ in [*table.columns, OVERALL]:
        organs = list(table.columns) if organ == OVERALL else [organ]
        shown = table[organs].dropna(how="all")
        low, high = interval(shown.to_numpy())
        yield counts | {
            "organ": organ,
            "mean": float(mean_of_organs(shown.to_numpy())),
            "low": low,
            "high": high,
            "sd_cases": shown.mean(axis=1).std(ddof=1),
            "sd_folds": deviation(folds.reindex(columns=organs)),
            "sd_seeds": deviation(seeds.reindex(columns=organs)),
            "patients": len(shown),
        }


def deviation(table: pd.DataFrame) -> float:
    """Standard deviation (n - 1) of the means of the first index level; nan for less than two."""
    parts = (part for _, part in table.dropna(how="all").groupby(level=0))
    means = [mean_of_organs(part.to_numpy()) for part in parts]
    return float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")


def on_common_folds(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the folds that every seed was tested on, else patients would pass for seeds."""
    seeds = rows.groupby("fold")["seed"].nunique()
    return rows[rows["fold"].isin(seeds.index[seeds == rows["seed"].nunique()])]


def compare(rows: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """Dice of every variant minus the reference's, a line a (protocol, variant, organ or `mean`).

    `reference` is a variant, or a floor (`copy`: every variant against its own floor); default the
    variant of the best mean, chosen for each protocol. Only what both have of the same fold, seed,
    support, query and organ is compared; what one lacks is counted in `dropped`. The differences
    are averaged to one a patient, for `mean` over the organs both have, and then tested: supports,
    seeds and folds never pass for independent patients.

    difference, low, high    mean over patients, with its bootstrap interval (95 %)
    p, effect                Wilcoxon signed-rank, matched-pairs rank-biserial
    p_holm                   Holm over all lines of the protocol. Where the data chose the
                             reference, any pair of variants might have been the one looked at, and
                             the family is all pairs (for two variants there is but one)
    differing                patients whose difference is not zero
    told_apart               p_holm < 0.05, and at least 6 patients differ
    note                     why there is no test, or why it can tell nothing

    Raises `UserError` for a reference that is not there.
    """
    chosen = select(rows, "dice")
    known = distinct(networks(chosen)["variant"])
    if reference is not None and reference not in {*known, *chosen["model"]}:
        names = ", ".join([*known, *(name for name in FLOORS if name in set(chosen["model"]))])
        raise UserError(f"there is no variant {reference!r} to compare with; choose one of {names}")
    lines = [
        {"protocol": protocol} | line
        for protocol, part in chosen.groupby("protocol", sort=False)
        for line in compare_variants(part, reference)
    ]
    return pd.DataFrame(lines, columns=list(COMPARED))


def compare_variants(rows: pd.DataFrame, reference: str | None) -> list[dict[str, object]]:
    """The lines of one protocol, and Holm's p over them."""
    variants = dict(list(networks(rows).groupby("variant", sort=False)))
    against = best_variant(rows) if reference is None else reference
    floors = dict(list(rows[rows["model"] == against].groupby("variant")))
    lines = [
        {"variant": variant, "reference": against} | line
        for variant, part in variants.items()
        if variant != against
        for line in compare_organs(part, floors.get(variant, variants.get(against, part[:0])))
    ]
    tested = np.array([line["p"] for line in lines], dtype=float)
    count = np.count_nonzero(~np.isnan(tested))
    looks = len(variants) / 2 if reference is None else 1  # all pairs are V / 2 times V - 1
    adjusted = holm(tested, tests=ceil(count * looks))
    for line, p in zip(lines, adjusted, strict=True):
        enough = line["differing"] >= FEWEST_FOR_TEST
        line |= {"p_holm": float(p), "told_apart": bool(enough and p < LEVEL)}
    return lines


def best_variant(rows: pd.DataFrame) -> str:
    """The variant of the highest mean over organs; of equals, the first."""
    parts = networks(rows).groupby("variant", sort=False)
    return str(max(parts, key=lambda part: mean_of(part[1]))[0])


def mean_of(rows: pd.DataFrame) -> float:
    """The mean over organs, as `describe` has it."""
    return float(mean_of_organs(per_patient(rows, keys=[]).to_numpy()))


def compare_organs(first: pd.DataFrame, second: pd.DataFrame) -> Iterator[dict[str, object]]:
    """The lines of two variants under one protocol: every organ, then their mean."""
    values = {"first": paired(first), "second": paired(second)}
    both = pd.concat(values, axis=1)
    common = both.dropna()
    apart = common["first"] - common["second"]
    table = apart.groupby(level=["query", "organ"], sort=False).mean().unstack("organ")
    for organ in [*distinct(both.index.get_level_values("organ")), OVERALL]:
        if organ == OVERALL:
            each, held, shared = table.mean(axis=1), len(both), len(common)
        else:
            each = table[organ].dropna() if organ in table else table.mean(axis=1)[:0]
            held, shared = (
                int((part.index.get_level_values("organ") == organ).sum())
                for part in (both, common)
            )
        yield {"organ": organ, "pairs": shared, "dropped": held - shared} | tell(each)


def paired(rows: pd.DataFrame) -> pd.Series:
    """The values by what another variant must share to be compared."""
    return rows.groupby(PAIR, sort=False)["value"].mean()


def tell(differences: pd.Series) -> dict[str, object]:
    """What one difference a patient tells."""
    values = differences.to_numpy(dtype=float)
    low, high = interval(values[:, None])
    p, effect, note = signed_rank(values)
    return {
        "difference": float(values.mean()) if len(values) else float("nan"),
        "low": low,
        "high": high,
        "p": p,
        "effect": effect,
        "patients": len(values),
        "differing": int(np.count_nonzero(np.round(values, DIGITS))),
        "note": note,
    }
