"""The words that the model speaks in: masked averages, cosine maps, shots folded into the batch."""

from collections.abc import Callable, Sequence

import torch
from einops import pack, rearrange, reduce, repeat, unpack
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.types import Features, Map

SMALL = 1e-5  # keeps quotients finite; well under the share of one pixel in a 512 x 512 mask


def over_shots(
    module: Callable[[Tensor], Tensor], x: Float[Tensor, "b s c h w"]
) -> Float[Tensor, "b s ..."]:
    """Fold the shots into the batch, call `module` once, unfold them again."""
    flat, leading = pack([x], "* c h w")
    return unpack(module(flat), leading, "* c h w")[0]


def for_queries(x: Shaped[Tensor, "g ..."], counts: Sequence[int] | None) -> Tensor:
    """Rows of supports for the queries: each as often as it counts, one after the other.

    Without counts every support has a query of its own. A single one is repeated without a copy.
    """
    if counts is None:
        return x
    if len(counts) == 1:
        return x.expand(counts[0], *x.shape[1:])
    return x[[row for row, count in enumerate(counts) for _ in range(count)]]


def to_tokens(mask: Float[Tensor, "*b H W"], *, like: Float[Tensor, "... h w"]) -> Tensor:
    """The share of every token of `like` that a mask covers, in [0, 1].

    The mask goes to the features, not the features to the mask. An average over tokens weighted
    by this share equals the masked average of nearest-neighbor upsampled features at full size.
    """
    flat, leading = pack([mask], "* h w")
    share = F.adaptive_avg_pool2d(flat.unsqueeze(1), like.shape[-2:]).squeeze(1)
    return unpack(share, leading, "* h w")[0]


def masked_average(
    features: Float[Tensor, "b s c h w"], share: Float[Tensor, "b s h w"]
) -> Float[Tensor, "b c"]:
    """Prototype: the mean feature over the foreground of all shots; zero where there is none."""
    weight = rearrange(share, "b s h w -> b s 1 h w").to(features.dtype)
    total = reduce(features * weight, "b s c h w -> b c", "sum")
    return total / (reduce(weight, "b s 1 h w -> b 1", "sum") + SMALL)


def cosine_map(features: Features, prototype: Float[Tensor, "b c"]) -> Map:
    """Cosine similarity of every position with the prototype, in [-1, 1]."""
    return F.cosine_similarity(
        features.float(), rearrange(prototype.float(), "b c -> b c 1 1"), dim=1, eps=SMALL
    )


def from_query(
    segment: Callable[[Tensor, Tensor, Tensor], Tensor],
    support: Float[Tensor, "b s c h w"],
    *,
    query: Features,
    share: Map,
) -> Float[Tensor, "b s h w"]:
    """Turn the roles round: `segment(support, share, query)` of every shot, given the query."""
    shots = support.shape[1]
    source = repeat(query, "b c h w -> (b s) 1 c h w", s=shots)
    shares = repeat(share, "b h w -> (b s) 1 h w", s=shots)
    flat, leading = pack([support], "* c h w")
    return unpack(segment(source, shares, flat), leading, "* h w")[0]


def spread(prototype: Float[Tensor, "b c"], *, like: Float[Tensor, "... h w"]) -> Features:
    """A prototype at every position of a map."""
    return rearrange(prototype, "b c -> b c 1 1").expand(-1, -1, *like.shape[-2:])


def to_unit_range(x: Map) -> Map:
    """Min-max normalization of each map to [0, 1]; a constant map becomes zero."""
    low = x.amin(dim=(-2, -1), keepdim=True)
    high = x.amax(dim=(-2, -1), keepdim=True)
    return (x - low) / (high - low + SMALL)


def enlarge(logits: Map, *, size: torch.Size) -> Float[Tensor, "b H W"]:
    """Bilinear interpolation of a map to the size of the slice."""
    enlarged = F.interpolate(logits.unsqueeze(1), size, mode="bilinear", align_corners=False)
    return enlarged.squeeze(1)


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels at every position of a map."""

    def forward(self, x: Features) -> Features:
        """Normalize (b, c, h, w) over c."""
        return rearrange(super().forward(rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")
