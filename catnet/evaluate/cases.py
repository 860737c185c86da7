"""One query case: every organ, protocol, predictor and set of supports, each slice encoded once.

What stays of it is one mask for each organ and one label volume.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray

from catnet.config import EvaluateSettings
from catnet.data.store import Case
from catnet.evaluate.batches import Piece, segment_tasks
from catnet.evaluate.kept import KeptSlices
from catnet.evaluate.metrics import measure
from catnet.evaluate.predictors import Predictor
from catnet.evaluate.tasks import Task, bind, make_tasks, places_of, plan_case

Watch = Callable[[Task, list[int], list[int]], None]


@dataclass
class Fused:
    """Several organs in one volume: the most probable one above one half; else background."""

    label: Integer[ndarray, "d h w"]
    best: Float[ndarray, "d h w"]

    @classmethod
    def empty(cls, shape: tuple[int, int, int]) -> "Fused":
        """Background everywhere."""
        return cls(np.zeros(shape, np.uint16), np.full(shape, 0.5, np.float32))

    def add(self, number: int, probability: Float[ndarray, "n h w"], slices: list[int]) -> None:
        """Give `number` to the voxels where it is more probable than what was there."""
        better = probability > self.best[slices]
        self.label[slices] = np.where(better, number, self.label[slices])
        self.best[slices] = np.where(better, probability, self.best[slices])


@dataclass(frozen=True)
class CaseResult:
    """The masks of a query case, by task, and the fused labels of each predictor and protocol."""

    tasks: list[Task]
    fused: dict[tuple[str, str], Fused] = field(default_factory=dict)

    def begin(self, tasks: Sequence[Task], *, fuse: bool) -> None:
        """Take up the tasks of a predictor, whose organs are fused or not."""
        self.tasks.extend(tasks)
        for task in tasks if fuse else ():
            key = task.predictor, task.protocol
            if key not in self.fused:
                self.fused[key] = Fused.empty(task.mask.shape)

    def add(self, piece: Piece, number: int) -> None:
        """Take up what was found for the organ of this number."""
        task = piece.task
        task.mask[piece.slices] = piece.probability > 0.5
        fused = self.fused.get((task.predictor, task.protocol))
        if fused is not None:
            fused.add(number, piece.probability, piece.slices)


def segment_case(
    predictors: Mapping[str, Predictor],
    query: Case,
    supports: Sequence[Case],
    *,
    organs: Mapping[str, int],
    settings: EvaluateSettings,
    watch: Watch | None = None,
) -> CaseResult:
    """Segment every organ of `query` with `supports` under every protocol.

    `watch` is told of every prediction right after it: its task, its slices, and which rows of
    what the predictor gave last are theirs.
    """
    (result,) = segment_query(
        predictors, query, [supports], organs=organs, settings=settings, watches=[watch]
    )
    return result


def segment_query(
    predictors: Mapping[str, Predictor],
    query: Case,
    support_sets: Sequence[Sequence[Case]],
    *,
    organs: Mapping[str, int],
    settings: EvaluateSettings,
    watches: Sequence[Watch | None],
    fuse: Collection[str] | None = None,
    kept: KeptSlices | None = None,
) -> tuple[CaseResult, ...]:
    """`segment_case` for several sets of as many shots, in one pass over the slices of the query.

    `fuse` names the predictors whose organs are fused, all where it is None; `kept` holds slices of
    supports from one query to the next.
    """
    kept = KeptSlices() if kept is None else kept
    plans = [
        plan_case(query, one, organs=organs, protocols=settings.protocols) for one in support_sets
    ]
    pairs = list(zip(support_sets, plans, strict=True))
    results = tuple(CaseResult([]) for _ in pairs)
    for name, predictor in predictors.items():
        places = [place for supports, some in pairs for place in places_of(supports, some)]
        encoded = kept.encode(predictor, places, batch=settings.batch)
        owners: dict[Task, int] = {}
        for number, (supports, some) in enumerate(pairs):
            bound = bind(predictor, supports, some, organs=organs, encoded=encoded)
            tasks = make_tasks(name, some, bound, shape=query.image.shape)
            owners.update(dict.fromkeys(tasks, number))
            results[number].begin(tasks, fuse=fuse is None or name in fuse)
        for piece in segment_tasks(predictor, query, list(owners), settings.batch):
            number = owners[piece.task]
            results[number].add(piece, organs[piece.task.organ])
            watch = watches[number]
            if watch is not None:
                watch(piece.task, piece.slices, piece.rows)
    return results


def score(
    result: CaseResult,
    query: Case,
    *,
    organs: Mapping[str, int],
    tolerance: float,
) -> Iterator[dict[str, object]]:
    """Rows of one case: every metric of every task, on the slices that its protocol counts."""
    width, height, depth = query.meta.spacing
    for task in result.tasks:
        slices = sorted(task.slices)
        truth = np.asarray(query.label[slices] == organs[task.organ])
        values = measure(
            task.mask[slices], truth, spacing=(depth, height, width), tolerance=tolerance
        )
        for metric, value in values.items():
            yield {
                "model": task.predictor,
                "protocol": task.protocol,
                "query": query.name,
                "organ": task.organ,
                "metric": metric,
                "value": value,
            }
