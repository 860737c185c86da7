"""Refiner's transformer block: attention with a refined map, then a feed-forward.

Paper: "Refiner: Refining Self-attention for Vision Transformers", Zhou, Shi, Kang, Yu, Jiang, Li,
Jin, Hou, Feng, 2021, arXiv 2106.03714.

    y = x + 2 attention(norm(x / 2)),    z = y + 2 s mlp(norm(y / 2))        s: a scale a channel
"""

from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from catnet.model.attention.layers import ChannelNorm, State, convert_block
from catnet.model.attention.refiner import Refiner
from catnet.model.ffn import Mlp
from catnet.types import Context, Features


class RefinerBlock(nn.Module):
    """The authors' transformer block: both branches see half of their input and count twice.

    The feed-forward's result is scaled per channel, from 1e-5 at the start.
    """

    carries_map: ClassVar[bool] = True

    def __init__(
        self, dim: int, *, attention: Refiner, mlp_ratio: float = 3.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.attention_norm = ChannelNorm(dim, eps=eps)
        self.attention = attention
        self.feed_forward_norm = ChannelNorm(dim, eps=eps)
        self.feed_forward = Mlp(dim, ratio=mlp_ratio)
        self.scale = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """`attend` without a map."""
        return self.attend(x, context)[0]

    def attend(
        self,
        x: Features,
        context: Context | None = None,
        previous: Float[Tensor, "b heads n m"] | None = None,
    ) -> tuple[Features, Float[Tensor, "b heads n m"]]:
        """As `Refiner.attend`; the context is halved and normed as `x` is."""
        context = None if context is None else self.attention_norm(context / 2)
        found, handed = self.attention.attend(self.attention_norm(x / 2), context, previous)
        x = x + 2 * found
        mixed = self.feed_forward(self.feed_forward_norm(x / 2))
        return x + 2 * rearrange(self.scale, "c -> c 1 1") * mixed, handed

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `Block` to ours."""
        block = {n: value for n, value in state.items() if n != "mlp.scale_channel"}
        return convert_block(block, Refiner.convert) | {"scale": state["mlp.scale_channel"]}
