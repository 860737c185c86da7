"""Multi-head attention between two maps, CAT-Net's own.

Paper: "Few Shot Medical Image Segmentation with Cross Attention Transformer", Lin et al., MICCAI
2023, arXiv 2303.13867, after "Attention Is All You Need", Vaswani et al., 2017, arXiv 1706.03762.

    attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V,    d = dim / heads

Q comes from `x`, K and V from the context. `keep` names the context positions that may be attended
to; `how` says where it enters (METHOD's `mask_how`):

    bias      softmax(Q K^T / sqrt(d) + log keep) V        the kept weights sum to one
    multiply  (softmax(Q K^T / sqrt(d)) * keep) V          the kept weights sum to less than one

With `bias` the dropped positions might as well not be there. With `multiply` nothing of their
values arrives, but their keys stay in the softmax's denominator.

Cross form: the paper's own; the context may have any height and width.

Cost: 2 (n + m) c^2 + 2 n m c multiply-adds, for n tokens of x, m of context (self: m = n), c
channels.
"""

from typing import ClassVar, Literal

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.model.attention.layers import Heads, Mechanism, check_heads, seen
from catnet.model.kept import kept_tokens
from catnet.types import Context, Features, Map


class MaskedAttention(Mechanism):
    """Multi-head attention on maps; `context` may have another height and width than `x`."""

    paper: ClassVar[str] = "CAT-Net, arXiv 2303.13867"
    good_for: ClassVar[str] = (
        "CAT-Net's own: all see all; a mask on the keys (bias) removes positions exactly"
    )

    def __init__(self, dim: int, *, heads: Heads = 8) -> None:
        super().__init__()
        check_heads("masked", dim=dim, heads=heads)
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(
        self,
        x: Features,
        context: Context | None = None,
        *,
        receive: Map | None = None,
        keep: Float[Tensor, "b i j"] | None = None,
        how: Literal["multiply", "bias"] = "multiply",
    ) -> Features:
        """Attend from every position of `x` to the positions of `context` (default: `x` itself).

        `receive` is a map in {0, 1} over `x`: where it is 0 the result is. `keep` is one of
        context's height and width; without any kept position the attended value is zero, never NaN.
        """
        tokens, seen_tokens = self.tokens(x, context)
        receiving = None if receive is None else kept_tokens(receive.flatten(1))
        if receiving is not None:
            tokens = receiving.of(tokens)
        if keep is not None:
            keep = keep.flatten(1)
            kept = kept_tokens(keep) if how == "bias" else None
            if kept is not None:
                seen_tokens, keep = kept.of(seen_tokens), kept.counts.to(keep)
        attended = self.attend(tokens, seen_tokens, keep=keep, how=how)
        if receiving is not None:
            attended = receiving.back(attended, tokens=x.shape[-2] * x.shape[-1])
        received = rearrange(attended, "b (h w) c -> b c h w", h=x.shape[-2])
        if receive is None or receiving is not None:
            return received
        return received * rearrange(receive, "b h w -> b 1 h w")

    def attend(
        self, tokens: Tensor, context: Tensor, *, keep: Float[Tensor, "b m"] | None, how: str
    ) -> Float[Tensor, "b n c"]:
        """What tokens (b, n, c) receive from those of the context (b, m, c) that are kept."""
        query, key, value = self.projections(tokens, context)
        bias = None
        if keep is not None:
            value = value * rearrange(keep, "b m -> b 1 m 1").to(value.dtype)
            if how == "bias":
                bias = exclude(rearrange(keep, "b m -> b 1 1 m"), like=query)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.project(rearrange(attended, "b heads n d -> b n (heads d)"))

    def tokens(self, x: Features, context: Context | None) -> tuple[Tensor, Tensor]:
        """The positions of `x` (b, n, c) and of its context (b, m, c), row by row."""
        context = seen(x, context)
        return rearrange(x, "b c h w -> b (h w) c"), rearrange(context, "b c i j -> b (i j) c")

    def projections(self, tokens: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the tokens, keys and values of the context, each (b, heads, tokens, d)."""
        key, value = self.key_value(context).chunk(2, dim=-1)
        query, key, value = (
            rearrange(part, "b n (heads d) -> b heads n d", heads=self.heads)
            for part in (self.query(tokens), key, value)
        )
        return query, key, value

    def attention_map(
        self,
        x: Features,
        context: Context | None = None,
        *,
        keep: Float[Tensor, "b i j"] | None = None,
        how: Literal["multiply", "bias"] = "multiply",
    ) -> Float[Tensor, "b heads n m"]:
        """The weights of the values: zero where nothing is kept.

        Rows sum to one without `keep` or with `how` bias, else to the share that the kept
        positions have of the softmax; to zero where no position is kept.
        """
        query, key, _ = self.projections(*self.tokens(x, context))
        logits = query @ key.mT / query.shape[-1] ** 0.5
        if keep is None:
            return logits.softmax(dim=-1)
        kept = rearrange(keep, "b i j -> b 1 1 (i j)").to(logits.dtype)
        if how == "bias":
            logits = logits + exclude(kept, like=logits)
        return logits.softmax(dim=-1) * kept


def exclude(keep: Tensor, *, like: Tensor) -> Tensor:
    """Additive bias that removes dropped positions; a row that keeps none stays finite."""
    none_kept = keep.sum(dim=-1, keepdim=True) == 0
    dropped = (keep == 0) & ~none_kept
    return like.new_zeros(dropped.shape).masked_fill(dropped, float("-inf"))
