"""The slices of a query for many tasks: each is encoded once, and they are segmented in batches.

What several tasks ask of the same slices with the same supports is asked once, and a batch that a
network segments mixes organs, protocols and supports. The memory does not grow with the volume.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catnet.data.store import Case
from catnet.evaluate.predictors import Predictor, Support, join
from catnet.evaluate.tasks import Task

Wait = tuple[Task, Support, list[int]]  # slices that a task wants, by the support of one chunk


@dataclass(frozen=True)
class Piece:
    """Slices of one chunk of a task, where they stood in their batch, and what was found."""

    task: Task
    slices: list[int]
    rows: list[int]
    probability: Float[ndarray, "n h w"]


def segment_tasks(
    predictor: Predictor, query: Case, tasks: Sequence[Task], batch: int
) -> Iterator[Piece]:
    """Segment all slices of the tasks, `batch` at a time: each is encoded once for all of them.

    Every slice meets the organs in their order, which decides between equals where they are fused.
    """
    needed = sorted({number for task in tasks for number in task.slices})
    tasks = by_organ(tasks)
    image = query.image
    for start in range(0, len(needed), batch):
        window = needed[start : start + batch]
        encoded = predictor.query(np.stack([image[number] for number in window]))
        waiting = list(pieces(tasks, set(window)))
        for rows in batches(waiting, batch):
            supports = Counter(support for support, _ in rows)
            where = [window.index(number) for _, number in rows]
            probability = predictor.segment(
                join(list(supports), list(supports.values())),
                None if encoded is None else encoded[where],
                len(rows),
            )
            yield from hand_out(waiting, rows, probability)


def by_organ(tasks: Sequence[Task]) -> list[Task]:
    """The protocols of an organ side by side, so that they share batches; nothing else changes."""
    order = {task.organ: place for place, task in reversed(list(enumerate(tasks)))}
    return sorted(tasks, key=lambda task: order[task.organ])


def batches(waiting: Sequence[Wait], size: int) -> Iterator[list[tuple[Support, int]]]:
    """Supports and query slices, `size` at a time; what several tasks wait for comes once."""
    wanted: dict[Support, set[int]] = {}
    for _, support, slices in waiting:
        wanted.setdefault(support, set()).update(slices)
    rows = [(support, number) for support, some in wanted.items() for number in sorted(some)]
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def hand_out(
    waiting: Sequence[Wait], rows: list[tuple[Support, int]], probability: Float[ndarray, "n h w"]
) -> Iterator[Piece]:
    """What a batch found, to every task that waits for it."""
    place = {row: number for number, row in enumerate(rows)}
    for task, support, slices in waiting:
        some = [number for number in slices if (support, number) in place]
        if some:
            where = [place[support, number] for number in some]
            yield Piece(task, some, where, probability[where])


def pieces(tasks: Iterable[Task], window: set[int]) -> Iterator[Wait]:
    """What of every chunk lies in the window."""
    for task in tasks:
        for chunk, support in zip(task.chunks, task.supports, strict=True):
            slices = [number for number in chunk.query if number in window]
            if slices:
                yield task, support, slices
