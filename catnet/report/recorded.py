"""Reads the views that evaluations recorded, and brings those of one case together.

A mask becomes the places where it changes, in reading order. A contour runs down the rows, so a
place is close to one row below the change before the last one, and what is written is the rest:

    rest_i = place_i - place_{i-2} - width       (place_{-1} = place_{-2} = 0)

zigzag-coded (0, -1, 1, -2, ...) in seven bits a byte, after their number. Deflated, this takes less
than half of what the bits of the mask do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from catnet.errors import UserError
from catnet.views import CaseViews, load_views

Slice = tuple[str, int]  # a case's name, a slice's number


@dataclass(frozen=True)
class Recorded:
    """The folder `browser` of an evaluation, and the variant that it belongs to."""

    variant: str
    folder: Path


@dataclass(frozen=True)
class Shot:
    """One view by one variant: the changes of M_0 .. M_N, their Dice in %, the prior if any."""

    rounds: tuple[bytes, ...]
    dice: tuple[float, ...]
    prior: UInt8[ndarray, "i j"] | None


@dataclass(frozen=True)
class Truth:
    """What a view shows whatever the variant: its support slice and the changes of both masks."""

    support_slice: int
    mask: bytes
    support_mask: bytes


@dataclass
class CaseRecord:
    """A query with its supports under one protocol, by every variant that recorded it.

    `truths` are by (organ, slice), `shots` by variant and (organ, slice), `dice` of the whole
    volume in % by (variant, organ).
    """

    query: str
    support: str
    first_support: str
    protocol: str
    truths: dict[tuple[str, int], Truth] = field(default_factory=dict)
    shots: dict[str, dict[tuple[str, int], Shot]] = field(default_factory=dict)
    dice: dict[tuple[str, str], float] = field(default_factory=dict)


@dataclass
class Records:
    """Everything that was recorded: the cases, and each slice's picture once."""

    cases: dict[tuple[str, str, str], CaseRecord] = field(default_factory=dict)
    images: dict[Slice, UInt8[ndarray, "h w"]] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture."""
        return next(iter(self.images.values())).shape

    def add(self, views: CaseViews, *, variant: str, source: Path) -> None:
        """Add a file's views; a case that the variant has already, by another seed, is left out."""
        for protocol in dict.fromkeys(views.protocols):
            key = (views.query, views.support, protocol)
            case = self.cases.setdefault(
                key, CaseRecord(key[0], key[1], views.first_support, key[2])
            )
            if variant not in case.shots:
                add_views(case, views, variant=variant)
        shown = [(views.query, views.slices, views.images)]
        shown.append((views.first_support, views.support_slices, views.support_images))
        for name, numbers, images in shown:
            for number, image in zip(numbers.tolist(), images, strict=True):
                known = self.images.setdefault((name, number), image)
                if not np.array_equal(known, image) or image.shape != self.size:
                    raise UserError(
                        f"{source}: slice {number} of case {name} looks different in another run; "
                        "evaluate all runs on the same prepared cases with --again"
                    )


def read_records(recorded: Iterable[Recorded]) -> Records:
    """All files of all folders; raises `UserError` for a damaged one, or where slices differ."""
    records = Records()
    for one in recorded:
        for path in sorted(one.folder.glob("[!.]*.npz")):
            records.add(load_views(path), variant=one.variant, source=path)
    return records


def add_views(case: CaseRecord, views: CaseViews, *, variant: str) -> None:
    """What one variant's file holds for one case and protocol."""
    shots = case.shots.setdefault(variant, {})
    for place, organ in enumerate(views.organ.tolist()):
        if views.protocols[organ] != case.protocol:
            continue
        name = views.organs[organ]
        key = (name, int(views.query_slice[place]))
        case.dice[variant, name] = float(views.dice[organ])
        case.truths.setdefault(
            key,
            Truth(
                int(views.support_slice[place]),
                changes(views.truth[place]),
                changes(views.support_mask[place]),
            ),
        )
        shots[key] = Shot(
            tuple(changes(mask) for mask in views.rounds[place]),
            tuple(views.slice_dice[place].tolist()),
            None if views.prior is None else views.prior[place],
        )


def changes(mask: Bool[ndarray, "h w"]) -> bytes:
    """The mask as the module says."""
    flat = mask.ravel()
    places = np.flatnonzero(np.diff(flat, prepend=False))
    rest = places - np.concatenate([[0, 0], places[:-2]])[: len(places)] - mask.shape[1]
    folded = np.where(rest >= 0, 2 * rest, -2 * rest - 1)
    return seven_bits([len(places), *folded.tolist()])


def seven_bits(numbers: Sequence[int]) -> bytes:
    """Numbers from 0, each in as many bytes as it needs: seven bits a byte, the lowest first."""
    found = bytearray()
    for number in numbers:
        while number > 127:
            found.append(128 | (number & 127))
            number >>= 7
        found.append(number)
    return bytes(found)
