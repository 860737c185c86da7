"""Pairs: plain, library, plain, library, ... so that a busy machine slows both alike.

A ratio is a measurement of the plain side to that of the library right after it; above one the
library needs less.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

Side = TypeVar("Side")


@dataclass(frozen=True)
class Row:
    """One line of the table: what was measured, and every sample of both sides in `unit`.

    `note` says what a reader must know to compare them.
    """

    name: str
    unit: str
    plain: tuple[float, ...]
    fast: tuple[float, ...]
    note: str = ""

    @property
    def ratios(self) -> tuple[float, ...]:
        """Plain over library, pair by pair."""
        return tuple(a / b for a, b in zip(self.plain, self.fast, strict=True))

    def summary(self) -> dict[str, object]:
        """Medians, and the smallest and largest ratio of a pair, beside all samples."""
        return {
            "name": self.name,
            "unit": self.unit,
            "plain": median(self.plain),
            "library": median(self.fast),
            "ratio": median(self.ratios),
            "ratio_min": min(self.ratios),
            "ratio_max": max(self.ratios),
            "note": self.note,
            "samples": {"plain": self.plain, "library": self.fast},
        }


def in_pairs(
    plain: Callable[[int], Side], fast: Callable[[int], Side], *, pairs: int, warm: int
) -> Iterator[tuple[Side, Side]]:
    """What both sides give for 0, 1, 2, ...; the first `warm` pairs are not counted."""
    for number in range(warm + pairs):
        both = plain(number), fast(number)
        if number >= warm:
            yield both


def paired_row(
    name: str,
    plain: Callable[[int], float],
    fast: Callable[[int], float],
    *,
    pairs: int,
    warm: int = 1,
    unit: str = "s",
    note: str = "",
) -> Row:
    """A row of two functions that measure themselves once a call."""
    found = list(in_pairs(plain, fast, pairs=pairs, warm=warm))
    return Row(name, unit, *zip(*found, strict=True), note)


def part_rows(
    found: list[tuple[Mapping[str, float], Mapping[str, float]]], *, name: str, note: str = ""
) -> list[Row]:
    """A row for each part of a step whose parts were measured one by one, in seconds."""
    return [
        Row(
            f"{name}: {part}", "s", *zip(*((a[part], b[part]) for a, b in found), strict=True), note
        )
        for part in found[0][0]
    ]
