"""Locally-grouped attention: multi-head attention within the windows of a map.

Paper: "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", Chu, Tian, Wang,
Zhang, Ren, Wei, Xia, Shen, NeurIPS 2021, arXiv 2104.13840.

    y_w = W_P softmax(scale * Q_w K_w^T) V_w        for every k x k window w

Windows start at the top left, do not overlap and are not shifted. Where they do not divide the
map, the last ones attend to the positions they hold; a window larger than the map is the map.

Differs from the authors' code: it takes any map. Their classification code raises an error where
windows do not divide the map; the masked variant in their segmentation code lets padded keys in
where only one of the two sides is padded. Ours excludes the padding always.

Cross form: queries from `x`, keys and values from the same window of the context, so the two should
show the same place. A context of another height or width is resized (bilinear).

Cost: 4 n c^2 + 2 N k^2 c multiply-adds for n tokens of c channels, with N tokens in whole windows:
n, and what fills the last ones up.
"""

import math
from typing import Annotated, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import (
    Heads,
    Mechanism,
    QkvBias,
    Scale,
    align,
    check_heads,
    rename,
    reshape,
)
from catnet.types import Context, Features


class LocallyGroupedAttention(Mechanism):
    """Multi-head attention within windows; `scale` None is (dim / heads) ** -0.5."""

    aligned: ClassVar[bool] = True
    paper: ClassVar[str] = "Twins, arXiv 2104.13840"
    good_for: ClassVar[str] = "attention within 7 x 7 windows; nothing crosses their borders"
    published: ClassVar[dict[str, str]] = {
        "qkv.weight": "3*c c",
        "proj.weight": "c c",
        "proj.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        heads: Heads = 8,
        window: Annotated[int, Field(description="side of a window; at most the map is one")] = 7,
        qkv_bias: QkvBias = True,
        scale: Scale = None,
    ) -> None:
        super().__init__()
        check_heads("lsa", dim=dim, heads=heads)
        if window < 1:
            raise UserError(f"lsa: window={window} holds no position; choose 1 or more")
        self.heads, self.window = heads, window
        self.scale = (dim // heads) ** -0.5 if scale is None else scale
        self.query = nn.Linear(dim, dim, bias=qkv_bias)
        self.key_value = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend from every window of `x` to the same window of `context` (default: `x`)."""
        batch, _, height, width = x.shape
        high, wide = min(self.window, height), min(self.window, width)
        query, key, value = [
            into_windows(part, high=high, wide=wide, heads=self.heads)
            for part in self.projections(x, context)
        ]
        keep = None
        if height % high or width % wide:
            ones = into_windows(x.new_ones(batch, height, width, 1), high=high, wide=wide, heads=1)
            keep = rearrange(ones > 0, "windows 1 k 1 -> windows 1 1 k")
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=keep, scale=self.scale)
        mixed = rearrange(
            mixed,
            "(b rows columns) heads (high wide) d -> b (rows high) (columns wide) (heads d)",
            b=batch,
            rows=math.ceil(height / high),
            high=high,
        )
        return rearrange(self.project(mixed[:, :height, :width]), "b h w c -> b c h w")

    def projections(self, x: Features, context: Context | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (b, h, w, c) on the grid of `x`."""
        context = align(context, like=x)
        key_value = self.key_value(rearrange(context, "b c h w -> b h w c"))
        return self.query(rearrange(x, "b c h w -> b h w c")), *key_value.chunk(2, dim=-1)

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b heads n n"]:
        """Weights over all positions of the (resized) context, zero outside the window."""
        query, key, _ = [
            rearrange(part, "b h w (heads d) -> b heads (h w) d", heads=self.heads)
            for part in self.projections(x, context)
        ]
        height, width = x.shape[-2:]
        row = torch.arange(height, device=x.device) // min(self.window, height)
        column = torch.arange(width, device=x.device) // min(self.window, width)
        window = (rearrange(row, "h -> h 1") * width + column).flatten()
        apart = rearrange(window, "n -> n 1") != window
        logits = self.scale * query @ key.mT
        return logits.masked_fill(apart, float("-inf")).softmax(dim=-1)

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' GroupAttention to ours: one matrix becomes two."""
        split = {n: t for n, t in state.items() if n not in ("qkv.weight", "qkv.bias")}
        ours = rename(split, {"proj": "project"})
        for name in state.keys() - split.keys():
            kind = name.removeprefix("qkv.")
            parts = reshape(name, state[name], "(part c) ... -> part c ...", part=3)
            ours[f"query.{kind}"] = parts[0]
            ours[f"key_value.{kind}"] = rearrange(parts[1:], "part c ... -> (part c) ...")
        return ours


def into_windows(
    tokens: Float[Tensor, "b h w c"], *, high: int, wide: int, heads: int
) -> Float[Tensor, "windows heads places d"]:
    """The windows of all episodes, one after the other; zeros fill the last ones up."""
    height, width = tokens.shape[1:3]
    filled = F.pad(tokens, (0, 0, 0, -width % wide, 0, -height % high))
    return rearrange(
        filled,
        "b (rows high) (columns wide) (heads d) -> (b rows columns) heads (high wide) d",
        high=high,
        wide=wide,
        heads=heads,
    )
