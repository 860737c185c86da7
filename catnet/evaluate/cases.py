"""One query case: every organ, protocol and predictor, each slice encoded once.

The slices pass in batches, outermost, so that the memory for encoded slices does not grow with the
volume; what stays is one mask for each organ and one label volume.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy import ndarray

from catnet.config import EvaluateSettings
from catnet.data.store import Case
from catnet.evaluate.metrics import measure
from catnet.evaluate.predictors import Predictor, Support
from catnet.evaluate.protocol import Chunk, plan


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
class Task:
    """One organ under one protocol by one predictor, with its encoded supports."""

    predictor: str
    protocol: str
    organ: str
    chunks: tuple[Chunk, ...]
    supports: tuple[Support, ...]
    mask: Bool[ndarray, "d h w"]

    @property
    def slices(self) -> list[int]:
        """Every query slice that the protocol counts."""
        return [number for chunk in self.chunks for number in chunk.query]


@dataclass(frozen=True)
class CaseResult:
    """The masks of a query case, by task, and the fused labels of each predictor and protocol."""

    tasks: tuple[Task, ...]
    fused: dict[tuple[str, str], Fused] = field(default_factory=dict)


def segment_case(
    predictors: Mapping[str, Predictor],
    query: Case,
    supports: Sequence[Case],
    *,
    organs: Mapping[str, int],
    settings: EvaluateSettings,
    watch: Callable[[Task, list[int]], None] | None = None,
) -> CaseResult:
    """Segment every organ of `query` with `supports` under every protocol.

    `watch` is told of every prediction right after it: its task and slices, row by row.
    """
    shape = query.image.shape
    tasks = tuple(
        Task(
            name,
            protocol,
            organ,
            chunks,
            encode(predictor, supports, organs[organ], chunks),
            np.zeros(shape, dtype=bool),
        )
        for name, predictor in predictors.items()
        for protocol in settings.protocols
        for organ in organs
        if (chunks := plan(protocol, organ=organ, supports=supports, query=query))
    )
    result = CaseResult(tasks, {(t.predictor, t.protocol): Fused.empty(shape) for t in tasks})
    for start in range(0, shape[0], settings.batch):
        window = range(start, min(start + settings.batch, shape[0]))
        for name, predictor in predictors.items():
            for task, slices in segment_window(
                predictor, query, window, result=result, name=name, organs=organs
            ):
                if watch is not None:
                    watch(task, slices)
    return result


def encode(
    predictor: Predictor, supports: Sequence[Case], number: int, chunks: tuple[Chunk, ...]
) -> tuple[Support, ...]:
    """The support of every chunk, one shot a support case, encoded once."""
    encoded = []
    for chunk in chunks:
        places = list(zip(supports, chunk.support, strict=True))
        images = np.stack([case.image[place] for case, place in places])
        masks = np.stack([case.label[place] == number for case, place in places])
        encoded.append(predictor.support(images, masks.astype(np.float32)))
    return tuple(encoded)


def segment_window(
    predictor: Predictor,
    query: Case,
    window: range,
    *,
    result: CaseResult,
    name: str,
    organs: Mapping[str, int],
) -> Iterator[tuple[Task, list[int]]]:
    """Segment some neighboring slices for every task of a predictor; they are encoded once.

    Gives every task and slices after they were segmented.
    """
    wanted = [task for task in result.tasks if task.predictor == name]
    needed = sorted({n for task in wanted for n in task.slices if n in window})
    if not needed:
        return
    encoded = predictor.query(np.stack([query.image[number] for number in needed]))
    for task, support, slices in pieces(wanted, set(needed)):
        rows = [needed.index(number) for number in slices]
        some = None if encoded is None else encoded[rows]
        probability = predictor.segment(support, some, len(slices))
        task.mask[slices] = probability > 0.5
        result.fused[name, task.protocol].add(organs[task.organ], probability, slices)
        yield task, slices


def pieces(tasks: list[Task], window: set[int]) -> Iterator[tuple[Task, Support, list[int]]]:
    """What of every chunk lies in the window."""
    for task in tasks:
        for chunk, support in zip(task.chunks, task.supports, strict=True):
            slices = [number for number in chunk.query if number in window]
            if slices:
                yield task, support, slices


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
