"""Outlook attention: weights over a neighborhood are predicted from its center, without keys.

Paper: "VOLO: Vision Outlooker for Visual Recognition", Yuan, Hou, Jiang, Feng, Yan, TPAMI 2022,
arXiv 2106.13112.

    A_p = softmax(scale * W_A x_p)      for every window center p, a K^2 x K^2 matrix per head
    y_q = W_P sum_p (A_p V_p)_q         V_p: values W_V x in the K x K window around p;
                                        the sum runs over the windows p that cover position q

Every position is covered by several windows, so it takes from up to 2 K - 1 rows and columns. With
a stride s the centers are every s-th position and x_p is the mean of x over the s x s cell that
begins there. Neighbors outside the map are zero values that still take their share of the
softmax. Overlapping windows are summed, not averaged.

Differs from the authors' code: in nothing that it computes. The padding is tied to the kernel
(kernel // 2), the one choice for which cells and windows agree on every map; an even kernel, or a
stride beyond the kernel, which leaves positions without a window, is refused.

Cross form: the weights come from `x`, the values from the context; the two should show the same
place. A context of another height or width is resized (bilinear).

Cost: 2 n c^2 + (n / s^2) c heads K^4 + (n / s^2) c K^4 multiply-adds, for n tokens, c channels.
"""

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
    PreNormBlock,
    Scale,
    align,
    check_heads,
    convert_block,
    rename,
    seen,
)
from catnet.types import Context, Features

NAMES = {"v": "value", "attn": "weigh", "proj": "project"}


class OutlookAttention(Mechanism):
    """Every position weighs its neighborhood by itself; `context` gives the neighbors' values.

    `scale` multiplies the logits; None is (dim / heads) ** -0.5. The VOLO models use stride 2.
    """

    aligned: ClassVar[bool] = True
    paper: ClassVar[str] = "VOLO, arXiv 2106.13112"
    good_for: ClassVar[str] = (
        "detail: 3 x 3 windows, weighed without keys; as they overlap, it sees 5 x 5"
    )
    published: ClassVar[dict[str, str]] = {
        "v.weight": "c c",
        "attn.weight": "k c",
        "attn.bias": "k",
        "proj.weight": "c c",
        "proj.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        heads: Heads = 8,
        kernel: Annotated[int, Field(le=11, description="side of a window, odd")] = 3,
        stride: Annotated[int, Field(description="tokens from one center to the next")] = 1,
        qkv_bias: Annotated[bool, Field(description="whether values have a bias")] = False,
        scale: Scale = None,
    ) -> None:
        super().__init__()
        check_heads("outlook", dim=dim, heads=heads)
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"outlook: kernel={kernel} has no center; choose an odd kernel")
        if not 1 <= stride <= kernel:
            raise UserError(f"outlook: stride={stride} must be from 1 to kernel={kernel}")
        self.heads, self.kernel, self.stride = heads, kernel, stride
        self.scale = (dim // heads) ** -0.5 if scale is None else scale
        self.value = nn.Linear(dim, dim, bias=qkv_bias)
        self.weigh = nn.Linear(dim, heads * kernel**4)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Gather from `context` (default: `x` itself) with weights that `x` predicts."""
        context = align(context, like=x)
        (height, width), edge = x.shape[-2:], self.edge
        value = self.value(rearrange(context, "b c h w -> b h w c"))
        value = F.pad(value, (0, 0, edge, edge, edge, edge))
        value = rearrange(value, "b h w (heads d) -> b h w heads d", heads=self.heads)
        places = self.places(height, width)
        windows = torch.stack([value[:, rows, columns] for rows, columns in places], dim=-2)
        mixed = self.weights(x) @ windows
        total = mixed.new_zeros(value.shape)
        for (rows, columns), part in zip(places, mixed.unbind(dim=-2), strict=True):
            total[:, rows, columns] += part
        total = rearrange(total, "b h w heads d -> b h w (heads d)")
        projected = self.project(total[:, edge : edge + height, edge : edge + width])
        return rearrange(projected, "b h w c -> b c h w")

    @property
    def edge(self) -> int:
        """Rows of zeros on each side of the map, where windows reach beyond it."""
        return self.kernel // 2

    @property
    def area(self) -> int:
        """Positions in a window."""
        return self.kernel**2

    def weights(self, x: Features) -> Float[Tensor, "b i j heads q k"]:
        """For every center, how much the window's place q takes of its place k; sums to one."""
        center = x if self.stride == 1 else F.avg_pool2d(x, self.stride, ceil_mode=True)
        logits = self.scale * self.weigh(rearrange(center, "b c i j -> b i j c"))
        logits = rearrange(
            logits, "b i j (heads q k) -> b i j heads q k", heads=self.heads, k=self.area
        )
        return logits.softmax(dim=-1)

    def places(self, height: int, width: int) -> list[tuple[slice, slice]]:
        """Where all windows have their first place, their second, ... on a map with its edge."""
        return [
            (slice(row, row + height, self.stride), slice(column, column + width, self.stride))
            for row in range(self.kernel)
            for column in range(self.kernel)
        ]

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b heads n n"]:
        """What every position of `x` takes of every position of the (resized) context.

        A row sums to the number of windows that cover its position, less the share of places off
        the map. The weights do not depend on the context.
        """
        seen(x, context)
        weights = self.weights(x)
        height, width = x.shape[-2:]
        count = height * width + 1
        # Number 0 stands for all places off the map.
        numbers = rearrange(torch.arange(1, count, device=x.device), "(h w) -> h w", h=height)
        numbers = F.pad(numbers, (self.edge,) * 4)
        places = [numbers[rows, columns] for rows, columns in self.places(height, width)]
        places = rearrange(places, "k i j -> (i j) k")
        pairs = rearrange(places, "p q -> p q 1") * count + rearrange(places, "p k -> p 1 k")
        dense = weights.new_zeros(len(x), self.heads, count**2)
        weights = rearrange(weights, "b i j heads q k -> b heads (i j q k)")
        dense = dense.index_add(-1, rearrange(pairs, "p q k -> (p q k)"), weights)
        return rearrange(dense, "b heads (n m) -> b heads n m", n=count)[..., 1:, 1:]

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' OutlookAttention to ours."""
        return rename(state, NAMES)


class Outlooker(PreNormBlock):
    """VOLO's block: outlook attention with the models' stride 2, then a feed-forward."""

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 8,
        kernel: int = 3,
        stride: int = 2,
        qkv_bias: bool = False,
        scale: float | None = None,
        mlp_ratio: float = 3.0,
        eps: float = 1e-5,
    ) -> None:
        attention = OutlookAttention(
            dim, heads=heads, kernel=kernel, stride=stride, qkv_bias=qkv_bias, scale=scale
        )
        super().__init__(dim, attention=attention, mlp_ratio=mlp_ratio, eps=eps)

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' Outlooker to ours."""
        return convert_block(state, OutlookAttention.convert)
