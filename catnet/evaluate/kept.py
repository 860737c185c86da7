"""Encoded slices of support cases, kept for every organ, protocol and query that needs them."""

from collections.abc import Iterable

import numpy as np

from catnet.data.store import Case
from catnet.evaluate.predictors import Predictor
from catnet.model.encoder import Encoded

ROOM = 2**29  # bytes
Place = tuple[Case, int]


class KeptSlices:
    """Encodes what it does not hold, in batches; beyond `room` bytes the oldest slices go."""

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.held: dict[tuple[Predictor, Case, int], Encoded | None] = {}

    def encode(
        self, predictor: Predictor, wanted: Iterable[Place], *, batch: int
    ) -> dict[Place, Encoded | None]:
        """Slices of cases as a predictor encodes them, each with a batch axis of one."""
        places = list(dict.fromkeys(wanted))
        found = {
            place: self.held.pop((predictor, *place))
            for place in places
            if (predictor, *place) in self.held
        }
        missing = [place for place in places if place not in found]
        for start in range(0, len(missing), batch):
            some = missing[start : start + batch]
            encoded = predictor.query(np.stack([case.image[number] for case, number in some]))
            for row, place in enumerate(some):
                found[place] = None if encoded is None else encoded[row : row + 1].copy()
        self.held |= {(predictor, *place): found[place] for place in places}
        self.make_room()
        return found

    def make_room(self) -> None:
        """Let go of the slices that were longest not asked for."""
        size = {key: 0 if one is None else one.size for key, one in self.held.items()}
        too_much = sum(size.values()) - self.room
        for key in list(self.held):
            if too_much <= 0:
                return
            too_much -= size[key]
            del self.held[key]
