"""What can segment a query from a support: a network, or a baseline without one.

A predictor encodes slices once; supports and queries are then combined as often as need be.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from catnet.model.encoder import Encoded, concatenate
from catnet.model.fold import folded
from catnet.model.network import Network, Prediction
from catnet.model.ops import for_queries

Slices = Float[ndarray, "n h w"]


@dataclass(frozen=True, eq=False)
class Support:
    """The support slices of chunks, as a predictor sees them, with their masks (g, s, h, w).

    One row (g = 1) stands for any number of query slices; several for as many as `counts` says.
    """

    encoded: Encoded | None
    mask: Float[Tensor, "g s h w"]
    counts: tuple[int, ...] = ()

    def counted(self, count: int) -> tuple[int, ...]:
        """How many of `count` query slices each row is for."""
        return self.counts or (count,)


def join(supports: Sequence[Support], counts: Sequence[int]) -> Support:
    """Supports of one row and the same shots in one, each for so many query slices in turn."""
    if len(supports) == 1:
        return supports[0]
    encoded = [support.encoded for support in supports if support.encoded is not None]
    masks = torch.cat([support.mask for support in supports])
    return Support(concatenate(encoded) if encoded else None, masks, tuple(counts))


@runtime_checkable
class Predictor(Protocol):
    """Foreground probabilities of query slices, given a support."""

    def support(self, images: Slices, masks: Slices) -> Support:
        """Encode the support slices of one chunk, one a shot."""

    def query(self, images: Slices) -> Encoded | None:
        """Encode slices, whatever their role."""

    def bind(self, encoded: Encoded | None, masks: Slices) -> Support:
        """The support of one chunk from slices that are encoded already."""

    def segment(self, support: Support, query: Encoded | None, count: int) -> Slices:
        """Probabilities of `count` encoded query slices."""


class CopyPredictor:
    """The floor: the mean of the support masks, whatever the query shows."""

    def support(self, images: Slices, masks: Slices) -> Support:
        """Keep the masks."""
        return self.bind(None, masks)

    def query(self, images: Slices) -> None:
        """Look at nothing."""

    def bind(self, encoded: None, masks: Slices) -> Support:
        """Keep the masks."""
        return Support(None, rearrange(torch.from_numpy(masks), "s h w -> 1 s h w"))

    def segment(self, support: Support, query: None, count: int) -> Slices:
        """The same mask for every slice."""
        mean = reduce(support.mask, "g s h w -> g h w", "mean")
        return for_queries(mean, support.counted(count)).numpy()


class NetworkPredictor:
    """A network of the bench, trained or not, in evaluation mode.

    It encodes by a folded twin, which is faster; in bfloat16 that would round otherwise.
    """

    def __init__(self, model: Network, *, device: torch.device, precision: torch.dtype) -> None:
        self.model = model.to(device).eval()
        self.encoder = folded(self.model) if precision == torch.float32 else self.model
        self.device = device
        self.precision = precision

    def support(self, images: Slices, masks: Slices) -> Support:
        """Encode the support slices once."""
        return self.bind(self.query(images), masks)

    def bind(self, encoded: Encoded, masks: Slices) -> Support:
        """The slices as shots, with their masks."""
        shots = Encoded(encoded.feature.unsqueeze(0), encoded.deep.unsqueeze(0))
        mask = torch.from_numpy(masks).to(self.device)
        return Support(shots, rearrange(mask, "s h w -> 1 s h w"))

    def query(self, images: Slices) -> Encoded:
        """Encode slices, whatever their role."""
        pixels = rearrange(torch.from_numpy(images).to(self.device), "n h w -> n 1 h w")
        with torch.inference_mode(), self.autocast():
            return self.encoder.encode(pixels)

    def segment(self, support: Support, query: Encoded, count: int) -> Slices:
        """Probabilities by the last mask."""
        return self.predict(support, query, count).probability.cpu().numpy()

    def predict(self, support: Support, query: Encoded, count: int) -> Prediction:
        """All masks of `count` encoded query slices."""
        counts = support.counted(count)
        with torch.inference_mode(), self.autocast():
            return self.model.segment(support.encoded, support.mask, query, counts)

    def autocast(self) -> torch.autocast:
        """Mixed precision where the run was trained so."""
        mixed = self.precision == torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)
