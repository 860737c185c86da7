"""Pseudo-labels of a data set: supervoxels added to prepared cases, and how much they give away."""

from collections.abc import Iterator

import numpy as np

from catnet.data.card import Card
from catnet.data.store import Case, SupervoxelMeta, write_supervoxels
from catnet.data.supervoxels import purity, supervoxels
from catnet.errors import UserError


def add_supervoxels(card: Card, cases: tuple[Case, ...]) -> Iterator[tuple[str, int, bool]]:
    """Cut every case; yields (case, number of cases, whether there was work)."""
    for case in cases:
        fresh = not has_supervoxels(case, card)
        if fresh:
            cut(case, min_size=card.supervoxels.min_size)
        yield case.name, len(cases), fresh


def has_supervoxels(case: Case, card: Card) -> bool:
    """Whether a case has pseudo-labels by the card's settings."""
    try:
        whole = case.supervoxels.shape == case.meta.shape
        return whole and case.supervoxel_meta.min_size == card.supervoxels.min_size
    except UserError:
        return False


def cut(case: Case, *, min_size: int) -> None:
    """Cut one case and write its supervoxels; raises `UserError` where they are too many."""
    labels = supervoxels(np.asarray(case.image), min_size=min_size)
    count = int(labels.max()) + 1
    if count > np.iinfo(np.uint16).max:
        raise UserError(f"{case.folder}: {count} supervoxels; raise the card's min_size")
    pixels = tuple(tuple(np.bincount(s.ravel(), minlength=count).tolist()) for s in labels)
    write_supervoxels(case, labels, SupervoxelMeta(min_size=min_size, pixels=pixels))


def mean_purity(card: Card, cases: tuple[Case, ...]) -> dict[str, float]:
    """Mean over the cases of the best single supervoxel's Dice with each organ, in [0, 1]."""
    found = [purity(case.supervoxels, case.label, card.organs) for case in cases]
    return {
        organ: float(np.mean([dice[organ] for dice in found if organ in dice]))
        for organ in card.organs
        if any(organ in dice for dice in found)
    }
