"""CMAT: the cross masked attention transformer, one round of it.

Paper: Lin et al., MICCAI 2023, arXiv 2303.13867, section 2.2 and Figure 1.

    self     X   = LN(MLP(SA(F)) + F)                        for each stream
    cross    S'  = attention(Q of support, K V of query),    restricted by M_s
             Q'  = attention(Q of query, K V of support),    restricted by M^_{i-1}
             then add & norm, MLP, add & norm

The sources leave open where the mask enters, so it is a setting. `mask_on: queries` (as drawn)
selects the positions that receive: a row whose weights are all zero, or all excluded before the
softmax, adds nothing either way, so `mask_how` makes no difference there. It is the attention that
is masked: `ffn: conv` mixes neighbors, so it hands on to a position outside of the mask, up to two
away, what those inside received. `mask_on: keys` selects the positions of the other stream that may
be attended to. For CAT-Net's own `masked`, `bias` removes the others exactly; `multiply` drops
their values after the softmax, in whose denominator their keys remain. Any other mechanism of the
zoo is given a context whose background is erased: see `erase` for what `mask_how` means there. A
mask without foreground leaves the stream as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import pack, rearrange, reduce, repeat, unpack
from jaxtyping import Float
from torch import Tensor, nn

from catnet.model.attention.layers import Mechanism, check_place
from catnet.model.attention.masked import MaskedAttention
from catnet.model.ffn import FFN
from catnet.model.ops import ChannelNorm, for_queries
from catnet.types import Context, Features, Map

Maps = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Streams:
    """The features of both streams, what their masks keep, and maps of the round before.

    `maps` are the self-attention maps of support (shots in the batch) and query that a mechanism
    with `carries_map` handed on; None where there is none. Before the streams have met there may be
    fewer supports (g) than queries (b): `counts` says how many queries each is for.
    """

    support: Float[Tensor, "g s c h w"]
    support_kept: Float[Tensor, "b s h w"]
    query: Features
    query_kept: Map
    maps: Maps = (None, None)
    counts: Sequence[int] | None = None


class SelfAttention(nn.Module):
    """X = LN(MLP(SA(F)) + F), with any mechanism of the zoo as SA.

    Raises `UserError` for one that needs a map which the first round does not have.
    """

    def __init__(self, *, dim: int, attention: Mechanism, ffn: str, mlp_ratio: float) -> None:
        super().__init__()
        check_place(attention)
        self.attention = attention
        self.ffn = FFN[ffn](dim, ratio=mlp_ratio)
        self.norm = ChannelNorm(dim)

    def forward(self, x: Features, previous: Tensor | None) -> tuple[Features, Tensor | None]:
        """The stream after looking at itself, and the attention map for the next round if any."""
        if self.attention.carries_map:
            attended, handed = self.attention.attend(x, None, previous)
        else:
            attended, handed = self.attention(x), None
        return self.norm(self.ffn(attended) + x), handed


class CrossAttention(nn.Module):
    """One stream receives from the other, restricted by one of the two masks.

    Raises `UserError` for a mechanism that needs a map, which the cross place never has.
    """

    def __init__(
        self,
        *,
        dim: int,
        attention: Mechanism,
        ffn: str,
        mlp_ratio: float,
        mask_on: Literal["queries", "keys", "none"],
        mask_how: Literal["multiply", "bias"],
    ) -> None:
        super().__init__()
        check_place(attention)
        self.attention = attention
        self.attended_norm = ChannelNorm(dim)
        self.ffn = FFN[ffn](dim, ratio=mlp_ratio)
        self.norm = ChannelNorm(dim)
        self.mask_on = mask_on
        self.mask_how = mask_how

    def forward(
        self, x: Features, context: Context, *, kept: Map, context_kept: Float[Tensor, "b i j"]
    ) -> Features:
        """`x` after receiving from `context`; `kept` and `context_kept` are their masks.

        The context may be several maps of the height of `x`, one below the other: the shots.
        """
        attended = self.attend(x, context, kept=kept, context_kept=context_kept)
        changed = self.attended_norm(x + attended)
        changed = self.norm(changed + self.ffn(changed))
        if self.mask_on == "none":
            return changed
        mask = kept if self.mask_on == "queries" else context_kept
        some = rearrange(mask.flatten(1).any(dim=1), "b -> b 1 1 1")
        return torch.where(some, changed, x)

    def attend(
        self, x: Features, context: Context, *, kept: Map, context_kept: Float[Tensor, "b i j"]
    ) -> Features:
        """What `x` receives, before it is added."""
        if self.mask_on == "keys" and isinstance(self.attention, MaskedAttention):
            return self.attention(x, context, keep=context_kept, how=self.mask_how)
        if self.mask_on == "keys":
            context = erase(context, kept=context_kept, how=self.mask_how)
        if self.mask_on == "queries" and isinstance(self.attention, MaskedAttention):
            return self.attention(x, context, receive=kept)
        attended = self.receive(x, context)
        if self.mask_on == "queries":
            return attended * rearrange(kept, "b h w -> b 1 h w")
        return attended

    def receive(self, x: Features, context: Context) -> Features:
        """Attend to the context: to all shots at once, or to each in turn where they do not mix."""
        shots = context.shape[-2] // x.shape[-2]
        if shots == 1 or not (self.attention.aligned or self.attention.one_by_one):
            return self.attention(x, context)
        single = rearrange(context, "b c (s h) w -> (b s) c h w", s=shots)
        received = self.attention(repeat(x, "b c h w -> (b s) c h w", s=shots), single)
        return reduce(received, "(b s) c h w -> b c h w", "mean", s=shots)


def erase(
    context: Context, *, kept: Float[Tensor, "b i j"], how: Literal["multiply", "bias"]
) -> Context:
    """A context without its background, for mechanisms other than `masked`.

    `multiply` leaves zeros in its place, `bias` the mean of what is kept. Nothing of the background
    can be read from the result but its place. With `bias`, means and maxima are those of the kept
    positions alone: so `se`, `eca`, `gc` that pools by the average, and `cbam` that pools by avg
    and max receive as if the background were not there. All others see that some positions are
    alike: `gsop`'s covariance shrinks, lp and lse count them, and where there are weights for
    positions (`nonlocal`, `gsa`, `lsa`, `lsa-gsa`, `outlook`, `clo`, `stripe`, `refiner`, `a2`,
    `gc`) the erased ones keep a share.
    """
    mask = rearrange(kept, "b i j -> b 1 i j")
    foreground = context * mask
    if how == "multiply":
        return foreground
    count = reduce(mask, "b 1 i j -> b 1 1 1", "sum").clamp_min(1)
    return foreground + (1 - mask) * reduce(foreground, "b c i j -> b c 1 1", "sum") / count


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

    def forward(self, streams: Streams) -> tuple[Float[Tensor, "b s c h w"], Features, Maps]:
        """The support and query features after this round, and the maps handed on."""
        shots, leading = pack([streams.support], "* c h w")
        shots, support_map = self.self_support(shots, streams.maps[0])
        support = for_queries(unpack(shots, leading, "* c h w")[0], streams.counts)
        if support_map is not None:
            each = unpack(support_map, leading, "* heads n m")[0]
            support_map = pack([for_queries(each, streams.counts)], "* heads n m")[0]
        of_query = self.self_query or self.self_support
        query, query_map = of_query(streams.query, streams.maps[1])
        attended = Streams(support, streams.support_kept, query, streams.query_kept)
        if self.direction != "support_to_query":
            support = self.to_support(attended)
        if self.direction != "query_to_support":
            query = self.to_query(attended)
        return support, query, (support_map, query_map)

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
