"""Which rows may stand in one table: a report never averages over what is not comparable."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from catnet.errors import UserError
from catnet.report.patients import FACTS, distinct, networks, varied_settings

NAMED = 3  # runs that an error names before it counts the others
QUALITY = ["model", "protocol", "support", "query", "organ", "metric"]


def check_comparable(rows: pd.DataFrame) -> None:
    """Raise `UserError`, one sentence that names the runs, where rows do not fit one table.

    Refused: no rows; columns that lack; values that are no finite numbers; other cards; other
    settings, support policies or shots, unless that is what the question varies; a variant of two
    networks; the same thing measured twice; protocols, organs, folds, seeds or patients that only
    some have.
    """
    lacking = [name for name in FACTS if name not in rows.columns]
    if lacking:
        raise UserError(f"the rows lack the columns {', '.join(lacking)}; evaluate the runs again")
    if rows.empty:
        raise UserError("there are no rows to report; evaluate the runs first")
    check_numbers(rows)
    problem = next(problems(rows), None)
    if problem:
        raise UserError(problem)


def check_numbers(rows: pd.DataFrame) -> None:
    """Every value is a finite number."""
    numbers = pd.to_numeric(rows["value"], errors="coerce").to_numpy(dtype=float)
    bad = rows[~np.isfinite(numbers)]
    if len(bad):
        first = bad.iloc[0]
        raise UserError(
            f"{first['metric']} of {first['model']} is {first['value']!r}, which is no number, in "
            f"{names(bad)}; evaluate again"
        )


def problems(rows: pd.DataFrame) -> Iterator[str]:
    """What forbids one table, the gravest first."""
    scored = rows[rows["protocol"].fillna("").astype(bool)]
    if scored.empty:
        yield "the rows hold costs alone, and no protocol; evaluate the runs again"
        return
    yield from mixed_facts(rows)
    yield from repeated(rows)
    for column in ("protocol", "organ"):
        yield from held_by_some(scored, column)
    moved = any(asked_for(rows, fact) for fact in ("policy", "shots"))
    yield from tested_elsewhere(networks(scored), free=moved)


def asked_for(rows: pd.DataFrame, fact: str) -> bool:
    """Whether the question varies just this fact."""
    setting = {"policy": "support"}.get(fact, fact)
    return any(name.rpartition(".")[2] == setting for name in varied_settings(rows))


def mixed_facts(rows: pd.DataFrame) -> Iterator[str]:
    """Facts that all rows, or all of a variant, must share."""
    remedy = "report them apart"
    for fact in ("card", "setting", "policy", "shots"):
        asked = fact != "card" and asked_for(rows, fact)
        if not asked and rows[fact].nunique(dropna=False) > 1:
            yield f"the {fact} differs, {listed(rows, fact)}; {remedy}"
    for variant, part in networks(rows).groupby("variant", sort=False):
        for fact in ("model", "shots"):
            if part[fact].nunique(dropna=False) > 1:
                yield f"the {fact} differs in the variant {variant}, {listed(part, fact)}; {remedy}"


def repeated(rows: pd.DataFrame) -> Iterator[str]:
    """The same thing twice in a run, or in two runs that pass for one.

    What a run cost stands once in every variant that is another evaluation of it, such as shots.
    """
    measured = rows[rows["protocol"] != ""]
    for some, keys in (
        (measured, ["run", *QUALITY]),
        (rows, ["variant", "fold", "seed", *QUALITY]),
    ):
        again = some[some.duplicated(keys, keep=False)]
        if again.empty:
            continue
        one = again.iloc[0]
        same = again[(again[keys].fillna("") == one[keys].fillna("")).all(axis=1)]
        what = " ".join(str(one[key]) for key in reversed(QUALITY) if one[key])
        yield (
            f"{what} is there {len(same)} times for {one['variant'] or 'one variant'}, fold "
            f"{one['fold']}, seed {one['seed']}, in {names(again)}; keep one of them"
        )


def held_by_some(rows: pd.DataFrame, column: str) -> Iterator[str]:
    """A protocol or an organ that some runs have, and others lack."""
    runs = set(rows["run"])
    for name, part in rows.groupby(column, sort=False):
        lacking = rows[rows["run"].isin(runs - set(part["run"]))]
        if len(lacking):
            yield (
                f"the {column} {name} is in {names(part)}, and not in {names(lacking)}; evaluate "
                "all of them the same way, or report them apart"
            )


def tested_elsewhere(rows: pd.DataFrame, *, free: bool) -> Iterator[str]:
    """Variants on other folds or by other seeds; or on other patients of a fold, unless `free`."""
    repeats = {
        name: sorted(set(zip(part["fold"], part["seed"], strict=True)))
        for name, part in rows.groupby("variant", sort=False)
    }
    first = next(iter(repeats))
    for variant, found in repeats.items():
        if found != repeats[first]:
            yield (
                f"{first} was tested on {pairs(repeats[first])}, {variant} on {pairs(found)} "
                f"(runs: {names(rows[rows['variant'] == variant])}); test all variants on the same "
                "folds with the same seeds"
            )
    queries = rows.groupby(["variant", "fold", "seed"], sort=False)["query"].agg(frozenset)
    fold_of = {fold: found for (_, fold, _), found in reversed(list(queries.items()))}
    for (variant, fold, _), found in queries.items():
        if not free and found != fold_of[fold]:
            part = rows[(rows["fold"] == fold) & rows["variant"].isin([first, variant])]
            yield (
                f"{first} and {variant} were tested on other patients of fold {fold}, in "
                f"{names(part)}; evaluate them the same way"
            )


def listed(rows: pd.DataFrame, fact: str) -> str:
    """`1 in run a, run b; 2 in run c` as one clause."""
    parts = rows.groupby(fact, sort=False, dropna=False)
    return " against ".join(f"{value} in {names(part)}" for value, part in parts)


def names(rows: pd.DataFrame) -> str:
    """The runs of some rows; beyond three, how many more."""
    found = distinct(rows["run"])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{joined(found[:NAMED])}{more}"


def pairs(repeats: list[tuple[int, int]]) -> str:
    """`fold 0 with seed 0, fold 1 with seed 0`."""
    return joined([f"fold {fold} with seed {seed}" for fold, seed in repeats])


def joined(values: list) -> str:
    """`a, b, c`."""
    return ", ".join(str(value) for value in values)
