"""The tokens that a mask keeps, gathered: what would be dropped afterwards is not computed.

With an organ's 80 of 1024 tokens, attention from or to them alone costs their share. How many there
are has to be read back, for which a GPU would wait and a compiled graph would end, so there all
tokens are computed and masked.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Tokens = Float[Tensor, "b n c"]


@dataclass(frozen=True)
class Kept:
    """Where the kept tokens stand, as many as the fullest episode has, and which of them count."""

    place: Int64[Tensor, "b k"]
    counts: Bool[Tensor, "b k"]

    def of(self, tokens: Tokens) -> Float[Tensor, "b k c"]:
        """The kept ones of all tokens; those that do not count are some others."""
        return tokens.gather(1, self.rows(tokens.shape[-1]))

    def back(self, kept: Float[Tensor, "b k c"], *, tokens: int) -> Tokens:
        """Each at its place among all tokens, zeros at the places that were not kept."""
        counted = kept * rearrange(self.counts, "b k -> b k 1")
        everywhere = kept.new_zeros(kept.shape[0], tokens, kept.shape[2])
        return everywhere.scatter(1, self.rows(kept.shape[-1]), counted)

    def rows(self, channels: int) -> Int64[Tensor, "b k c"]:
        """The places, once for every channel."""
        return rearrange(self.place, "b k -> b k 1").expand(-1, -1, channels)


def kept_tokens(mask: Float[Tensor, "b n"]) -> Kept | None:
    """Where `mask` is not zero; None where all are computed, on a GPU or in a compiled graph."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return None
    kept = mask != 0
    most = max(int(kept.sum(dim=1).max()), 1)
    place = torch.argsort(kept.byte(), dim=1, descending=True, stable=True)[:, :most]
    return Kept(place, kept.gather(1, place))
