"""CMAT: the cross masked attention transformer, one round of it.

Paper: Lin et al., MICCAI 2023, arXiv 2303.13867, section 2.2 and Figure 1.

    self     X   = LN(MLP(SA(F)) + F)                        for each stream
    cross    S'  = attention(Q of support, K V of query),    restricted by M_s
             Q'  = attention(Q of query, K V of support),    restricted by M^_{i-1}
             then add & norm, MLP, add & norm

The sources leave open where the mask enters, so it is a setting. `mask_on: queries` (as drawn)
selects the positions that receive: a row whose weights are all zero, or all excluded before the
softmax, adds nothing either way, so `mask_how` makes no difference there. `mask_on: keys` selects
the positions of the other stream that may be attended to. A mask without foreground leaves the
stream as it was.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from catnet.model.attention import build_attention
from catnet.model.ops import ChannelNorm, over_shots
from catnet.types import Context, Features, Map


@dataclass(frozen=True)
class Streams:
    """What a round takes and gives: the features of both streams and what their masks keep."""

    support: Float[Tensor, "b s c h w"]
    support_kept: Float[Tensor, "b s h w"]
    query: Features
    query_kept: Map


def mlp(dim: int, ratio: float) -> nn.Sequential:
    """Two 1x1 convolutions with a GELU between them."""
    hidden = round(dim * ratio)
    return nn.Sequential(nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.Conv2d(hidden, dim, 1))


class SelfAttention(nn.Module):
    """X = LN(MLP(SA(F)) + F), with any mechanism of the zoo as SA."""

    def __init__(
        self, *, dim: int, attention: str, options: dict[str, object], mlp_ratio: float
    ) -> None:
        super().__init__()
        self.attention = build_attention(attention, dim, options)
        self.mlp = mlp(dim, mlp_ratio)
        self.norm = ChannelNorm(dim)

    def forward(self, x: Features) -> Features:
        """The stream, after looking at itself."""
        return self.norm(self.mlp(self.attention(x)) + x)


class CrossAttention(nn.Module):
    """One stream receives from the other, restricted by one of the two masks."""

    def __init__(
        self,
        *,
        dim: int,
        mlp_ratio: float,
        mask_on: Literal["queries", "keys", "none"],
        mask_how: Literal["multiply", "bias"],
    ) -> None:
        super().__init__()
        self.attention = build_attention("masked", dim, {})
        self.attended_norm = ChannelNorm(dim)
        self.mlp = mlp(dim, mlp_ratio)
        self.norm = ChannelNorm(dim)
        self.mask_on = mask_on
        self.mask_how = mask_how

    def forward(
        self, x: Features, context: Context, *, kept: Map, context_kept: Float[Tensor, "b i j"]
    ) -> Features:
        """`x` after receiving from `context`; `kept` and `context_kept` are their masks."""
        attended = self.attend(x, context, kept=kept, context_kept=context_kept)
        changed = self.attended_norm(x + attended)
        changed = self.norm(changed + self.mlp(changed))
        if self.mask_on == "none":
            return changed
        mask = kept if self.mask_on == "queries" else context_kept
        some = rearrange(mask.flatten(1).any(dim=1), "b -> b 1 1 1")
        return torch.where(some, changed, x)

    def attend(
        self, x: Features, context: Context, *, kept: Map, context_kept: Float[Tensor, "b i j"]
    ) -> Features:
        """What `x` receives, before it is added."""
        if self.mask_on == "keys":
            return self.attention(x, context, keep=context_kept, how=self.mask_how)
        attended = self.attention(x, context)
        if self.mask_on == "none":
            return attended
        return attended * rearrange(kept, "b h w -> b 1 h w")


class Round(nn.Module):
    """Self-attention of each stream, then the exchange between them.

    Without a `self_query` both streams share `self_support`.
    """

    def __init__(
        self,
        *,
        self_support: SelfAttention,
        self_query: SelfAttention | None,
        cross: CrossAttention,
        direction: Literal["both", "support_to_query", "query_to_support"],
    ) -> None:
        super().__init__()
        self.self_support = self_support
        self.self_query = self_query
        self.cross = cross
        self.direction = direction

    def forward(self, streams: Streams) -> tuple[Float[Tensor, "b s c h w"], Features]:
        """The support and query features after this round."""
        support = over_shots(self.self_support, streams.support)
        query = (self.self_query or self.self_support)(streams.query)
        attended = Streams(support, streams.support_kept, query, streams.query_kept)
        if self.direction != "support_to_query":
            support = self.to_support(attended)
        if self.direction != "query_to_support":
            query = self.to_query(attended)
        return support, query

    def to_support(self, streams: Streams) -> Float[Tensor, "b s c h w"]:
        """Every shot receives from the query."""
        batch, shots = streams.support.shape[:2]
        received = self.cross(
            rearrange(streams.support, "b s c h w -> (b s) c h w"),
            repeat(streams.query, "b c h w -> (b s) c h w", s=shots),
            kept=rearrange(streams.support_kept, "b s h w -> (b s) h w"),
            context_kept=repeat(streams.query_kept, "b h w -> (b s) h w", s=shots),
        )
        return rearrange(received, "(b s) c h w -> b s c h w", b=batch)

    def to_query(self, streams: Streams) -> Features:
        """The query receives from all shots at once: their keys and values stand in one row."""
        return self.cross(
            streams.query,
            rearrange(streams.support, "b s c h w -> b c (s h) w"),
            kept=streams.query_kept,
            context_kept=rearrange(streams.support_kept, "b s h w -> b (s h) w"),
        )
