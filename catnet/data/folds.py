"""Folds, supports and settings: who is tested, by whom, and which slices may train.

The published folds of the field overlap: the last case of a fold also opens the next one. Here that
case is the fold's *extra*: under `support: extra` it supports, so every case of the data set is a
query exactly once. With a support index instead, the usual protocol of the literature, some cases
are never a query and others twice (METHOD section 5).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from catnet.data.card import Card
from catnet.data.store import Case, natural
from catnet.errors import UserError


@dataclass(frozen=True)
class Fold:
    """The tested cases of a fold, its extra case last, and the cases that train."""

    tested: tuple[Case, ...]
    training: tuple[Case, ...]


def split(card: Card, cases: tuple[Case, ...], fold: int) -> Fold:
    """Fold number `fold` of the sorted `cases`; no tested case trains, the extra one included."""
    folds = fold_indices(card, len(cases))
    if fold >= len(folds):
        raise UserError(
            f"data.fold {fold} is not there; card {card.name} has 0 to {len(folds) - 1}"
        )
    missing = [index for index in folds[fold] if index >= len(cases)]
    if missing:
        raise UserError(
            f"fold {fold} of card {card.name} names case number {missing[0]}, but {len(cases)} "
            "are prepared; prepare the others, or choose another fold"
        )
    tested = tuple(cases[index] for index in folds[fold])
    chosen = set(folds[fold])
    training = tuple(case for index, case in enumerate(cases) if index not in chosen)
    return Fold(tested, training)


def shortage(card: Card, count: int) -> str:
    """Why so many cases are too few for the card's folds, in a sentence; empty where they are not.

    Folds that are lists can be used as far as their cases are there.
    """
    folds = card.folds
    needed = 2 * folds if isinstance(folds, int) else 1 + max(max(fold) for fold in folds)
    if count >= needed:
        return ""
    ready = 0 if isinstance(folds, int) else sum(max(fold) < count for fold in folds)
    cases = "1 case is" if count == 1 else f"{count} cases are"
    return (
        f"the folds of card {card.name} need {needed} cases, and {cases} there: {ready} of its "
        f"{folds if isinstance(folds, int) else len(folds)} folds can be used"
    )


def fold_indices(card: Card, count: int) -> tuple[tuple[int, ...], ...]:
    """The card's lists; or, for a number of folds, blocks that borrow the next one's first case."""
    if not isinstance(card.folds, int):
        return card.folds
    if count < 2 * card.folds:
        raise UserError(
            f"card {card.name} asks for {card.folds} folds, but {count} cases are prepared; "
            f"prepare at least {2 * card.folds}, or lower the card's folds"
        )
    edges = [round(number * count / card.folds) for number in range(card.folds + 1)]
    return tuple((*range(start, stop), stop % count) for start, stop in pairwise(edges))


def support_sets(
    tested: tuple[Case, ...], *, policy: Literal["extra", "index", "each"], index: int, shots: int
) -> list[tuple[tuple[Case, ...], tuple[Case, ...]]]:
    """(supports, queries) of a fold whose extra case is last; several only under `each`.

    `extra`  the extra case supports; further shots are the cases before it.
    `index`  the case at `index` of the fold in ascending order; further shots follow it.
    `each`   every case in turn, in ascending order; further shots follow it.
    """
    if shots >= len(tested):
        raise UserError(
            f"evaluate.shots {shots} leaves no query in a fold of {len(tested)} cases; lower it"
        )
    if policy == "extra":
        return [(tested[::-1][:shots], tested[: len(tested) - shots])]
    if policy == "index" and index >= len(tested):
        raise UserError(
            f"evaluate.support_index {index} is not in a fold of {len(tested)} cases; lower it"
        )
    ascending = tuple(sorted(tested, key=lambda case: natural(case.name)))
    starts = range(len(tested)) if policy == "each" else [index]
    turned = [ascending[start:] + ascending[:start] for start in starts]
    return [(order[:shots], order[shots:]) for order in turned]


def training_slices(
    case: Case, *, setting: Literal["1", "2", "2-as-published"], organs: Mapping[str, int]
) -> Bool[ndarray, " d"]:
    """Which slices of a case may train while `organs` are tested.

    Setting 1 keeps all; setting 2 removes those that show ANY tested organ; `2-as-published`
    reproduces the common loader, which removes those that show ALL of them.
    """
    shown = np.array([case.meta.pixels[organ] for organ in organs]) > 0
    if setting == "1":
        return np.ones(shown.shape[1], dtype=bool)
    return ~(shown.any(axis=0) if setting == "2" else shown.all(axis=0))
