"""CloFormer's attention: local gates for high frequencies, pooled attention for low ones.

Paper: "Rethinking Local Perception in Lightweight Vision Transformer", Fan, Huang, Guan, He, 2023,
arXiv 2303.17803.

    local   y = tanh(FC(swish(FC(q . k))) / sqrt(d)) . v        . is element by element,
            q, k, v = D_q * W_q x, D_k * W_k x, D_v * W_v x     D: a k x k kernel per channel
    global  y = softmax(q K^T / sqrt(d)) V                      K, V: of x, averaged over cells
    out     W_O [local_1, ..., local_m, global]

`group_split` says how many of the heads, of d channels each, go to every local branch (one per
kernel) and, last, to the global one. Within a local branch heads matter to the scale alone.

Differs from the authors' code: cells that end at the border average what is there, where theirs
needs a map that the window divides; a local branch may have no head. No dropout, no stochastic
depth; batch norm is the plain one, not synchronized.

Cross form: queries come from `x`. The global branch has keys and values of the pooled context, of
any height and width. In the local branches k and v are the context's, so the two should show the
same place; a context of another size is resized there (bilinear).

Cost, of a branch with a c of the c channels (0 < a <= 1), for n tokens, cells of w^2 tokens:
local n (3 a c^2 + 3 a c k^2 + 2 a^2 c^2), global n a c (c + 2 c / w^2 + 2 n / w^2); W_O n c^2.
"""

import re
from collections.abc import Sequence
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
    align,
    check_heads,
    rename,
    reshape,
    seen,
)
from catnet.types import Context, Features

GLOBAL_NAMES = {
    "global_q": "global_branch.query",
    "global_kv": "global_branch.key_value",
    "proj": "project",
}
LOCAL = re.compile(r"(qkvs|convs)\.\d+\.(weight|bias)")
GATE = re.compile(r"act_blocks\.\d+\.act_block\.[02]\.(weight|bias)")


class CloAttention(Mechanism):
    """Local branches and a global one, side by side; the default is CloFormer-XXS's third stage."""

    aligned: ClassVar[bool] = True
    paper: ClassVar[str] = "CloFormer, arXiv 2303.17803"
    good_for: ClassVar[str] = "local gates beside global attention to a map pooled 2 x 2"
    published: ClassVar[dict[str, str]] = {"proj.weight": "c c 1 1"}

    def __init__(
        self,
        dim: int,
        *,
        heads: Heads = 8,
        group_split: Annotated[
            Sequence[int], Field(description="heads of every local branch and of the global one")
        ] = (4, 4),
        kernels: Annotated[
            Sequence[Annotated[int, Field(le=127)]],
            Field(description="sides of the local branches' kernels, odd"),
        ] = (7,),
        window: Annotated[
            int, Field(le=1024, description="side of the global branch's cells, in tokens")
        ] = 2,
        qkv_bias: QkvBias = True,
    ) -> None:
        super().__init__()
        check_heads("clo", dim=dim, heads=heads)
        check_split(group_split, heads=heads, kernels=kernels)
        if window < 1:
            raise UserError(f"clo: window={window}, but a cell has at least 1 token; raise it")
        self.local_branches = nn.ModuleList(
            AttnConv(dim, heads=part, width=dim // heads, kernel=kernel, qkv_bias=qkv_bias)
            for part, kernel in zip(group_split[:-1], kernels, strict=True)
            if part
        )
        self.global_branch = (
            PooledAttention(
                dim, heads=group_split[-1], width=dim // heads, window=window, qkv_bias=qkv_bias
            )
            if group_split[-1]
            else None
        )
        self.project = nn.Conv2d(dim, dim, 1, bias=qkv_bias)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend from `x` to `context` (default: `x` itself), near and far."""
        context = seen(x, context)
        near = align(context, like=x)
        mixed = [branch(x, near) for branch in self.local_branches]
        if self.global_branch is not None:
            mixed.append(self.global_branch(x, context))
        return self.project(torch.cat(mixed, dim=1))

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b heads n m"]:
        """The global heads' weights, a cell's shared evenly by its positions; rows sum to one.

        A local branch has gates instead. Without a global branch there are no heads.
        """
        context = seen(x, context)
        if self.global_branch is None:
            positions = [part.shape[-2] * part.shape[-1] for part in (x, context)]
            return x.new_zeros(len(x), 0, *positions)
        return self.global_branch.attention_map(x, context)

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' EfficientAttention to ours."""
        ours = {}
        for name, tensor in state.items():
            if LOCAL.fullmatch(name):
                ours |= AttnConv.split(name, tensor)
            elif GATE.fullmatch(name):
                name = name.replace("act_blocks.", "local_branches.")
                ours[name.replace("act_block.", "gate.")] = tensor
            else:
                ours |= rename({name: tensor}, GLOBAL_NAMES)
        return ours


class AttnConv(nn.Module):
    """The local branch: a depthwise convolution of the values, gated by queries and keys."""

    def __init__(self, dim: int, *, heads: int, width: int, kernel: int, qkv_bias: bool) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"clo: kernel {kernel} of kernels has no center; choose an odd one")
        inner = heads * width
        self.scale = width**-0.5
        self.query, self.key, self.value = (
            nn.Sequential(
                nn.Conv2d(dim, inner, 1, bias=qkv_bias),
                nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner),
            )
            for _ in range(3)
        )
        self.gate = nn.Sequential(nn.Conv2d(inner, inner, 1), nn.SiLU(), nn.Conv2d(inner, inner, 1))

    def forward(self, x: Features, context: Features) -> Float[Tensor, "b e h w"]:
        """Queries of `x`, keys and values of the same place in `context`."""
        gate = self.gate(self.query(x) * self.key(context))
        return torch.tanh(gate * self.scale) * self.value(context)

    @staticmethod
    def split(name: str, tensor: Tensor) -> dict[str, Tensor]:
        """The authors' joint q, k, v layer `qkvs.I` or `convs.I` as three of branch I."""
        stem, branch, kind = name.split(".")
        step = ("qkvs", "convs").index(stem)
        return {
            f"local_branches.{branch}.{part}.{step}.{kind}": share
            for part, share in zip(
                ("query", "key", "value"),
                reshape(name, tensor, "(part c) ... -> part c ...", part=3),
                strict=True,
            )
        }


class PooledAttention(nn.Module):
    """The global branch: every token attends to the averages of `window` x `window` cells."""

    def __init__(self, dim: int, *, heads: int, width: int, window: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.scale = width**-0.5
        self.query = nn.Conv2d(dim, heads * width, 1, bias=qkv_bias)
        self.key_value = nn.Conv2d(dim, 2 * heads * width, 1, bias=qkv_bias)

    def forward(self, x: Features, context: Context) -> Float[Tensor, "b e h w"]:
        """Attend from every position of `x` to every cell of `context`."""
        query, key, value = self.project_in(x, context)
        attended = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return rearrange(attended, "b heads (h w) d -> b (heads d) h w", h=x.shape[-2])

    def project_in(self, x: Features, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Queries per position, keys and values per cell, each (b, heads, tokens, d)."""
        query, key_value = self.query(x), self.key_value(self.cells(context))
        query = rearrange(query, "b (heads d) h w -> b heads (h w) d", heads=self.heads)
        key, value = rearrange(
            key_value, "b (part heads d) i j -> part b heads (i j) d", part=2, heads=self.heads
        )
        return query, key, value

    def cells(self, context: Context) -> Float[Tensor, "b c k l"]:
        """The mean of every cell, over the positions that it has."""
        return F.avg_pool2d(context, self.window, ceil_mode=True)

    def attention_map(self, x: Features, context: Context) -> Float[Tensor, "b heads n m"]:
        """Weights over the positions of the context; a cell's is shared evenly by its positions."""
        query, key, _ = self.project_in(x, context)
        weights = (self.scale * query @ key.mT).softmax(dim=-1)
        height, width = context.shape[-2:]
        each = torch.eye(height * width, dtype=weights.dtype, device=x.device)
        shares = self.cells(rearrange(each, "m (h w) -> m 1 h w", h=height))
        return weights @ rearrange(shares, "m 1 i j -> (i j) m")


def check_split(split: Sequence[int], *, heads: int, kernels: Sequence[int]) -> None:
    """Raise `UserError` unless the branches share out all heads, one local branch per kernel."""
    if len(split) != len(kernels) + 1:
        raise UserError(
            f"clo: group_split has {len(split)} entries for {len(kernels)} kernels; "
            "give one per kernel and a last one for the global branch"
        )
    if min(split) < 0 or sum(split) != heads:
        raise UserError(f"clo: group_split={list(split)} must share out heads={heads}; mend one")
