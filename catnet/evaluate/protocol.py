"""Which support slice segments which query slices: EP1 and EP2.

EP1, after "Self-Supervision with Superpixels", Ouyang et al., ECCV 2020, arXiv 2007.09886: of the C
support slices that show the organ take numbers int(C/6), int(C/2), int(5C/6); cut the query's organ
slices in three chunks at linspace(0, C_q, 4), rounded down; chunk k is segmented with slice k. It
knows where the organ lies in the query.
EP2, after Hansen et al., arXiv 2203.02048: the whole query volume, one support slice, the middle of
the organ's extent. It knows nothing of the query.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from catnet.data.store import Case

CHUNKS = 3


@dataclass(frozen=True)
class Chunk:
    """Query slices that are segmented together, and the support slice of each support case."""

    support: tuple[int, ...]
    query: tuple[int, ...]


def plan(
    protocol: Literal["EP1", "EP2"], *, organ: str, supports: Sequence[Case], query: Case
) -> tuple[Chunk, ...]:
    """The chunks of a query; none where a support or the query lacks the organ."""
    shown = [organ_slices(case, organ) for case in supports]
    wanted = organ_slices(query, organ)
    if not wanted or not all(shown):
        return ()
    if protocol == "EP2":
        return (Chunk(tuple(middle(slices) for slices in shown), tuple(range(query.depth))),)
    per_case = [chunk_supports(slices) for slices in shown]
    return tuple(
        Chunk(tuple(support), chunk)
        for support, chunk in zip(zip(*per_case, strict=True), cut(wanted), strict=True)
        if chunk
    )


def organ_slices(case: Case, organ: str) -> list[int]:
    """The slices of a case that show the organ, from below."""
    return np.flatnonzero(case.meta.pixels[organ]).tolist()


def chunk_supports(slices: Sequence[int]) -> list[int]:
    """One support slice a chunk: the middle of each third."""
    count = len(slices)
    return [slices[int((2 * k + 1) * count / (2 * CHUNKS))] for k in range(CHUNKS)]


def cut(slices: Sequence[int]) -> list[tuple[int, ...]]:
    """The query slices in three chunks; one is empty where there are fewer than three slices."""
    edges = np.linspace(0, len(slices), CHUNKS + 1).astype(int)
    return [tuple(slices[edges[k] : edges[k + 1]]) for k in range(CHUNKS)]


def middle(slices: Sequence[int]) -> int:
    """The slice in the middle of the organ's extent that shows the organ."""
    center = (slices[0] + slices[-1]) / 2
    return min(slices, key=lambda number: abs(number - center))
