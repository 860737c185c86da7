"""Records, while a case is evaluated, what a browser shows of it: no slice is encoded twice.

The trained network's predictor is watched: every prediction that is made anyway is looked at once,
and of the slices that were chosen beforehand every round's mask is kept, small.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from einops import reduce
from jaxtyping import Bool, Float, Integer, UInt8
from numpy import ndarray

from catnet.data.store import Case
from catnet.evaluate.predictors import NetworkPredictor, Slices, Support
from catnet.evaluate.tasks import Task
from catnet.model.catnet import Prediction
from catnet.model.encoder import Encoded
from catnet.model.trace import traced_prior
from catnet.types import Map
from catnet.views import CaseViews, spread_evenly

LONGEST = 128  # pixels of a shown slice
SHOWN = 12  # slices of an organ


class WatchedPredictor:
    """A network's predictor that keeps its last prediction, and the prior behind it if any."""

    def __init__(self, predictor: NetworkPredictor) -> None:
        self.predictor = predictor
        self.last: Prediction | None = None
        self.prior: Map | None = None

    def support(self, images: Slices, masks: Slices) -> Support:
        """Encode the support slices of one chunk."""
        return self.predictor.support(images, masks)

    def query(self, images: Slices) -> Encoded:
        """Encode query slices."""
        return self.predictor.query(images)

    def bind(self, encoded: Encoded, masks: Slices) -> Support:
        """The support of one chunk from encoded slices."""
        return self.predictor.bind(encoded, masks)

    def segment(self, support: Support, query: Encoded, count: int) -> Slices:
        """Probabilities after the last round."""
        with traced_prior(self.predictor.model) as priors:
            self.last = self.predictor.predict(support, query, count)
        self.prior = priors[-1] if priors else None
        return self.last.probability.cpu().numpy()


@dataclass(frozen=True)
class View:
    """One organ on one query slice: the masks M_0 .. M_N, their Dice in %, the prior if any."""

    support_slice: int
    rounds: Bool[ndarray, "r h w"]
    dice: Float[ndarray, " r"]
    prior: UInt8[ndarray, "i j"] | None


@dataclass(kw_only=True)
class CaseRecorder:
    """Keeps the views of one query case; give it to `segment_case` as `watch`.

    Only `name`'s tasks under `protocol` are kept: a protocol has every organ that any other has.
    """

    watched: WatchedPredictor
    name: str
    protocol: str
    query: Case
    supports: Sequence[Case]
    organs: Mapping[str, int]
    found: dict[str, dict[int, View]] = field(default_factory=dict)
    wanted: dict[str, frozenset[int]] = field(default_factory=dict)

    def __call__(self, task: Task, slices: Sequence[int], rows: Sequence[int]) -> None:
        """Look at what was just predicted for some slices of a task, in those rows."""
        if (task.predictor, task.protocol) != (self.name, self.protocol):
            return
        if task.organ not in self.wanted:
            shown = np.flatnonzero(self.query.meta.pixels[task.organ]).tolist()
            self.wanted[task.organ] = choose_slices(task.slices, shown=shown)
            self.found[task.organ] = {}
        source = next(c.support[0] for c in task.chunks if slices[0] in c.query)
        for row, number in zip(rows, slices, strict=True):
            if number in self.wanted[task.organ]:
                self.found[task.organ][number] = self.view(
                    row, number, organ=task.organ, source=source
                )

    def view(self, row: int, number: int, *, organ: str, source: int) -> View:
        """What the watched predictor holds in a row: slice `number` by support slice `source`."""
        probability = np.stack([m[0].cpu().numpy() for m in self.watched.last[[row]].rounds])
        truth = np.asarray(self.query.label[number] == self.organs[organ])
        prior = self.watched.prior
        return View(
            source,
            np.stack([smaller_mask(mask > 0.5) for mask in probability]),
            np.array([dice(mask > 0.5, truth) for mask in probability]),
            None if prior is None else to_bytes(prior[row].float().cpu().numpy(), (0.0, 1.0)),
        )

    def case_views(self, scores: Sequence[Mapping[str, object]], *, flip: bool) -> CaseViews:
        """Everything that was kept; `scores` are the rows of the case.

        `flip` where a slice's rows run from back to front, as in `catnet.pictures`.
        """
        kept = [(o, n, view) for o, some in self.found.items() for n, view in sorted(some.items())]
        organs, first = list(self.found), self.supports[0]
        slices = np.unique([number for _, number, _ in kept])
        sources = np.unique([view.support_slice for _, _, view in kept])
        truth = [self.mask(self.query, organ, number) for organ, number, _ in kept]
        shown = [self.mask(first, organ, view.support_slice) for organ, _, view in kept]
        priors = [view.prior for _, _, view in kept if view.prior is not None]
        return CaseViews(
            query=self.query.name,
            support="+".join(case.name for case in self.supports),
            first_support=first.name,
            model=self.name,
            organs=tuple(organs),
            protocols=(self.protocol,) * len(organs),
            dice=np.array([self.volume_dice(scores, organ) for organ in organs]),
            slices=slices,
            images=stack(draw(self.query, slices), flip=flip),
            support_slices=sources,
            support_images=stack(draw(first, sources), flip=flip),
            organ=np.array([organs.index(organ) for organ, _, _ in kept]),
            query_slice=np.array([number for _, number, _ in kept]),
            support_slice=np.array([view.support_slice for _, _, view in kept]),
            truth=stack(truth, flip=flip),
            support_mask=stack(shown, flip=flip),
            rounds=stack([view.rounds for _, _, view in kept], flip=flip),
            slice_dice=np.stack([view.dice for _, _, view in kept]),
            prior=stack(priors, flip=flip) if priors else None,
        )

    def volume_dice(self, scores: Sequence[Mapping[str, object]], organ: str) -> float:
        """Dice of the recorded task of an organ, from the rows of the case."""
        task = {
            "model": self.name,
            "protocol": self.protocol,
            "organ": organ,
            "metric": "dice",
        }
        (found,) = [row["value"] for row in scores if task.items() <= row.items()]
        return float(found)

    def mask(self, case: Case, organ: str, number: int) -> Bool[ndarray, "h w"]:
        """The true mask of an organ on a slice, at the size that is shown."""
        return smaller_mask(np.asarray(case.label[number] == self.organs[organ]))


def choose_slices(
    counted: Sequence[int], *, shown: Sequence[int], most: int = SHOWN
) -> frozenset[int]:
    """Up to `most` of the `counted` slices, spread evenly; those that show the organ come first."""
    counted = sorted(counted)
    showing = [number for number in counted if number in set(shown)]
    others = [number for number in counted if number not in set(shown)]
    chosen = spread_evenly(showing, most)
    return frozenset(chosen + spread_evenly(others, most - len(chosen)))


def draw(case: Case, slices: Sequence[int] | Integer[ndarray, " n"]) -> list[UInt8[ndarray, "h w"]]:
    """Slices as grey values between the 1st and the 99.5th percentile of the case, small."""
    window = np.percentile(case.image[:, ::2, ::2], (1, 99.5))
    return [to_bytes(smaller(np.asarray(case.image[n])), window) for n in slices]


def stack(arrays: Sequence[ndarray], *, flip: bool) -> ndarray:
    """Arrays (..., h, w) as one, turned front up where `flip` says so."""
    together = np.stack(arrays)
    return np.flip(together, axis=-2) if flip else together


def to_bytes(
    values: Float[ndarray, "h w"], window: tuple[float, float] | Float[ndarray, " 2"]
) -> UInt8[ndarray, "h w"]:
    """0 at the lower end of the window and below, 255 at the upper one and above."""
    low, high = window
    share = (values - low) / max(high - low, 1e-6)
    return (255 * share.clip(0, 1)).round().astype(np.uint8)


def smaller(values: Float[ndarray, "H W"]) -> Float[ndarray, "h w"]:
    """Means of square blocks, as small as need be for `LONGEST`; sizes divide by 32."""
    block = -(-max(values.shape) // LONGEST)
    while any(side % block for side in values.shape):
        block += 1
    return reduce(values, "(h a) (w b) -> h w", "mean", a=block, b=block)


def smaller_mask(mask: Bool[ndarray, "H W"]) -> Bool[ndarray, "h w"]:
    """A pixel is foreground where half of its block is."""
    return smaller(mask.astype(np.float32)) >= 0.5


def dice(prediction: Bool[ndarray, "h w"], truth: Bool[ndarray, "h w"]) -> float:
    """Dice in percent of one slice; nan where neither mask has a pixel."""
    total = np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 200 * np.count_nonzero(prediction & truth) / total if total else float("nan")
