"""What can segment a query from a support: a network, or a baseline without one.

A predictor encodes slices once; supports and queries are then combined as often as need be.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from einops import rearrange, reduce, repeat
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from catnet.model.encoder import Encoded
from catnet.model.network import Network, Prediction

Slices = Float[ndarray, "n h w"]


@dataclass(frozen=True)
class Support:
    """The support slices of a chunk, as a predictor sees them, with their masks (1, s, h, w)."""

    encoded: Encoded | None
    mask: Float[Tensor, "1 s h w"]


@runtime_checkable
class Predictor(Protocol):
    """Foreground probabilities of query slices, given a support."""

    def support(self, images: Slices, masks: Slices) -> Support:
        """Encode the support slices of one chunk, one a shot."""

    def query(self, images: Slices) -> Encoded | None:
        """Encode query slices."""

    def segment(self, support: Support, query: Encoded | None, count: int) -> Slices:
        """Probabilities of `count` encoded query slices."""


class CopyPredictor:
    """The floor: the mean of the support masks, whatever the query shows."""

    def support(self, images: Slices, masks: Slices) -> Support:
        """Keep the masks."""
        return Support(None, rearrange(torch.from_numpy(masks), "s h w -> 1 s h w"))

    def query(self, images: Slices) -> None:
        """Look at nothing."""

    def segment(self, support: Support, query: None, count: int) -> Slices:
        """The same mask for every slice."""
        mean = reduce(support.mask, "1 s h w -> h w", "mean")
        return repeat(mean, "h w -> n h w", n=count).numpy()


class NetworkPredictor:
    """A network of the bench, trained or not, in evaluation mode."""

    def __init__(self, model: Network, *, device: torch.device, precision: torch.dtype) -> None:
        self.model = model.to(device).eval()
        self.device = device
        self.precision = precision

    def support(self, images: Slices, masks: Slices) -> Support:
        """Encode the support slices once."""
        encoded = self.query(images)
        shots = Encoded(encoded.feature.unsqueeze(0), encoded.deep.unsqueeze(0))
        mask = torch.from_numpy(masks).to(self.device)
        return Support(shots, rearrange(mask, "s h w -> 1 s h w"))

    def query(self, images: Slices) -> Encoded:
        """Encode slices."""
        pixels = rearrange(torch.from_numpy(images).to(self.device), "n h w -> n 1 h w")
        with torch.inference_mode(), self.autocast():
            return self.model.encode(pixels)

    def segment(self, support: Support, query: Encoded, count: int) -> Slices:
        """Probabilities by the last mask."""
        return self.predict(support, query, count).probability.cpu().numpy()

    def predict(self, support: Support, query: Encoded, count: int) -> Prediction:
        """All masks of `count` encoded query slices."""
        mask = support.mask.expand(count, *support.mask.shape[1:])
        with torch.inference_mode(), self.autocast():
            return self.model.segment(support.encoded.expand(count), mask, query)

    def autocast(self) -> torch.autocast:
        """Mixed precision where the run was trained so."""
        mixed = self.precision == torch.bfloat16
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=mixed)
