"""One query case: every organ, protocol, predictor and set of supports, each slice encoded once.

The slices pass in batches, so that the memory for encoded slices does not grow with the volume;
what stays is one mask for each organ and one label volume. What is asked of the same slices under
several protocols is asked once, and the batches that a network segments mix organs and supports.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Integer
from numpy import ndarray

from catnet.config import EvaluateSettings
from catnet.data.store import Case
from catnet.evaluate.kept import KeptSlices, Place
from catnet.evaluate.metrics import measure
from catnet.evaluate.predictors import Predictor, Support, join
from catnet.evaluate.protocol import Chunk, plan
from catnet.model.encoder import Encoded, concatenate

Plan = dict[tuple[str, str], tuple[Chunk, ...]]  # by protocol and organ


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


@dataclass(frozen=True, eq=False)
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


Wait = tuple[Task, Support, list[int]]  # slices that a task wants, by the support of one chunk
Watch = Callable[[Task, list[int], list[int]], None]


@dataclass(frozen=True)
class Piece:
    """Slices of one chunk of a task, where they stood in their batch, and what was found."""

    task: Task
    slices: list[int]
    rows: list[int]
    probability: Float[ndarray, "n h w"]


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


def plan_case(
    query: Case, supports: Sequence[Case], *, organs: Iterable[str], protocols: Iterable[str]
) -> Plan:
    """The chunks of a query, for every protocol and organ that has some."""
    return {
        (protocol, organ): chunks
        for protocol in protocols
        for organ in organs
        if (chunks := plan(protocol, organ=organ, supports=supports, query=query))
    }


def places_of(supports: Sequence[Case], plan: Plan) -> Iterator[Place]:
    """The support slices that a plan needs."""
    for chunks in plan.values():
        for chunk in chunks:
            yield from zip(supports, chunk.support, strict=True)


def bind(
    predictor: Predictor,
    supports: Sequence[Case],
    plan: Plan,
    *,
    organs: Mapping[str, int],
    encoded: Mapping[Place, Encoded | None],
) -> dict[tuple[str, tuple[int, ...]], Support]:
    """By organ and slices, one shot a support case: what the protocols share is there once."""
    found = {}
    wanted = {(organ, chunk.support) for (_, organ), chunks in plan.items() for chunk in chunks}
    for organ, numbers in wanted:
        places = list(zip(supports, numbers, strict=True))
        masks = np.stack([case.label[number] == organs[organ] for case, number in places])
        slices = [one for place in places if (one := encoded[place]) is not None]
        shots = concatenate(slices) if slices else None
        found[organ, numbers] = predictor.bind(shots, masks.astype(np.float32))
    return found


def make_tasks(
    name: str,
    plan: Plan,
    bound: Mapping[tuple[str, tuple[int, ...]], Support],
    *,
    shape: tuple[int, int, int],
) -> list[Task]:
    """The tasks of a predictor, with empty masks."""
    return [
        Task(
            name,
            protocol,
            organ,
            chunks,
            tuple(bound[organ, chunk.support] for chunk in chunks),
            np.zeros(shape, dtype=bool),
        )
        for (protocol, organ), chunks in plan.items()
    ]


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
