"""What is asked of a query case: organs under protocols, with the encoded supports of each.

A plan names the slices; bound to a predictor's supports and an empty mask it is a task.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from catnet.data.store import Case
from catnet.evaluate.kept import Place
from catnet.evaluate.predictors import Predictor, Support
from catnet.evaluate.protocol import Chunk, plan
from catnet.model.encoder import Encoded, concatenate

Plan = dict[tuple[str, str], tuple[Chunk, ...]]  # by protocol and organ


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
