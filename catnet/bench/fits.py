"""How a cost grows: its values over a range, and the exponent of a power law fitted to them.

    log cost = exponent * log x + constant

by least squares over the upper half of the range, where what does not grow weighs least. Of every
point the quickest repetition counts: a busy machine only ever adds to it.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t

FEWEST = 3  # points of a fit
SLACK = 0.1  # of an exponent: caches that no longer hold everything


@dataclass(frozen=True)
class Fit:
    """The exponent with its 95 % interval, and the points that it was fitted to."""

    exponent: float
    low: float
    high: float
    points: int


@dataclass(frozen=True)
class Curve:
    """What a cost in seconds was at every place of a range.

    name     short, also of its file
    cost     what takes the time
    over     what grows
    places   where it was measured
    samples  every repetition at every place
    most     the exponent that it may have
    because  one sentence that explains it
    """

    name: str
    cost: str
    over: str
    places: tuple[int | float, ...]
    samples: tuple[tuple[float, ...], ...]
    most: float
    because: str

    @property
    def quickest(self) -> tuple[float, ...]:
        """The quickest repetition at every place."""
        return tuple(min(sample) for sample in self.samples)

    @property
    def fit(self) -> Fit:
        """The power law of the upper half."""
        return fit_power(self.places, self.quickest)

    @property
    def verdict(self) -> str:
        """Whether it grows no faster than it may, by all of the interval, or what is unclear."""
        allowed = self.most + SLACK
        if self.fit.high <= allowed:
            return f"within {self.most:g}"
        if self.fit.low > allowed:
            return f"WORSE than {self.most:g}"
        return f"unclear whether within {self.most:g}"

    def summary(self) -> dict[str, object]:
        """As numbers for a file."""
        fit = self.fit
        return {
            "name": self.name,
            "cost": self.cost,
            "over": self.over,
            "places": self.places,
            "samples": self.samples,
            "exponent": fit.exponent,
            "interval": (fit.low, fit.high),
            "fitted_points": fit.points,
            "most": self.most,
            "because": self.because,
        }


def fit_power(places: tuple[int | float, ...], costs: tuple[float, ...]) -> Fit:
    """The exponent over the upper half of the places, of at least three; zero is no place."""
    points = [(x, y) for x, y in zip(places, costs, strict=True) if x > 0]
    count = max(FEWEST, (len(points) + 1) // 2)
    x, y = np.log(points[-count:]).T
    slope, level = np.polyfit(x, y, 1)
    left = np.square(y - slope * x - level).sum() / (count - 2)
    reach = t.ppf(0.975, count - 2) * np.sqrt(left / np.square(x - x.mean()).sum())
    return Fit(float(slope), float(slope - reach), float(slope + reach), count)
