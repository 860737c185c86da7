"""From tidy rows to one number a patient: what every table, test and picture starts from.

A patient is a query. Its supports, seeds and folds are averaged first, so that one who is tested
twice (the folds of the field overlap) counts once.
"""

import pandas as pd

from catnet.errors import UserError

FLOORS = ("copy", "untrained")
OVERALL = "mean"  # the column beside the organs
PAIR = ["fold", "seed", "support", "query", "organ"]  # what two variants have in common
FACTS = (
    *("variant", "run", "question", "card", "fold", "seed", "setting", "policy", "shots"),
    *("support", "model", "protocol", "query", "organ", "metric", "value"),
)
SAME = 1e-3  # points or mm up to which two variants have the same floor


def select(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of one metric; raises `UserError` where there is none."""
    chosen = rows[rows["metric"] == metric]
    if chosen.empty:
        raise UserError(f"the rows hold no {metric}; evaluate the runs again, then report")
    return chosen


def distinct(names: pd.Series | pd.Index) -> list:
    """Every name once, in the order in which it first appears."""
    return list(dict.fromkeys(names))


def networks(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows that are no floors."""
    return rows[~rows["model"].isin(FLOORS)]


def varied_settings(rows: pd.DataFrame) -> list[str]:
    """The columns beside the facts: one for every setting that the question varies."""
    return [name for name in rows.columns if name not in FACTS]


def per_patient(rows: pd.DataFrame, *, keys: list[str]) -> pd.DataFrame:
    """One number a patient and organ: index (*keys, query), a column an organ, nan if lacking."""
    table = rows.pivot_table("value", [*keys, "query"], "organ", aggfunc="mean", sort=False)
    return table[distinct(rows["organ"])]


def merge_floors(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of one metric, floors first; a floor that all variants agree on has the variant "".

    They agree where every one has it on the same fold, support, query and organ, with the same
    values; so a floor of 1 shot and one of 5 shots, or two untrained networks, stay apart.
    """
    parts = []
    for model in FLOORS:
        floor = rows[rows["model"] == model]
        if len(floor) and floors_agree(floor):
            first = floor["variant"] == floor["variant"].iloc[0]
            floor = floor[first].assign(variant="")
        parts.append(floor)
    return pd.concat([*parts, networks(rows)])


def floors_agree(floor: pd.DataFrame) -> bool:
    """Whether one floor is the same in all variants that have it; seeds are averaged."""
    keys = ["protocol", *(name for name in PAIR if name != "seed")]
    each = floor.pivot_table("value", keys, "variant")
    apart = each.max(axis=1) - each.min(axis=1)
    return not each.isna().any(axis=None) and bool(apart.max() <= SAME)


def label(variant: str, model: str) -> str:
    """What a line is called: the variant; `copy`, or `copy (shots=1)` where floors differ."""
    if model not in FLOORS:
        return variant or model
    return f"{model} ({variant})" if variant else model


def cost(rows: pd.DataFrame, metric: str) -> pd.Series:
    """Mean over the runs of a variant (of a cost such as `episode_seconds`), by variant.

    Empty where no run has it.
    """
    chosen = networks(rows[rows["metric"] == metric])
    return chosen.groupby("variant", sort=False)["value"].mean()
