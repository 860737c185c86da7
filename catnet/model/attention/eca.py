"""Efficient channel attention: a channel's weight depends on its neighboring channels only.

Paper: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", Wang, Wu,
Zhu, Li, Zuo, Hu, CVPR 2020, arXiv 1910.03151.

    y_c = sigmoid(sum_j w_j mean(x)_{c + j - k // 2}) x_c,    j = 0 ... k - 1, zeros past the ends
    k = |log2(c) / gamma + beta / gamma| made odd,            gamma = 2, beta = 1

Differs from the authors' code (BangguWu/ECANet): there the kernel is passed in by hand and is 3
for every layer of a ResNet; here, as the paper says, it follows from the channels unless given.
Cross form: the mean is taken over the context, the weights are applied to `x`; the context may
have any height and width.
Cost: m c to pool, k c for the weights, n c to apply them (n tokens of x, m of context).
"""

import math
from typing import Annotated, ClassVar

from einops import rearrange, reduce
from pydantic import Field
from torch import nn

from catnet.errors import UserError
from catnet.model.attention.layers import Mechanism, State, rename, seen
from catnet.types import Context, Features


class EfficientChannelAttention(Mechanism):
    """Channel weights by one convolution along the channel axis, without a bias."""

    paper: ClassVar[str] = "ECA-Net, arXiv 1910.03151"
    good_for: ClassVar[str] = "as se, for a handful of weights"
    published: ClassVar[dict[str, str]] = {"conv.weight": "1 1 k"}

    def __init__(
        self,
        dim: int,
        *,
        kernel: Annotated[
            int | None, Field(le=1023, description="channels that a weight sees; None: by the rule")
        ] = None,
        gamma: Annotated[int, Field(le=1023, description="divisor in the rule")] = 2,
        beta: Annotated[int, Field(ge=-1023, le=1023, description="shift in the rule")] = 1,
    ) -> None:
        super().__init__()
        if gamma < 1:
            raise UserError(f"eca: gamma={gamma} must be at least 1; the paper takes 2")
        kernel = adaptive_kernel(dim, gamma=gamma, beta=beta) if kernel is None else kernel
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(
                f"eca: kernel={kernel} must be odd and positive; leave it out for the adaptive rule"
            )
        self.convolution = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Weigh the channels of `x` by what the context (default: `x` itself) holds on average."""
        means = reduce(seen(x, context), "b c i j -> b 1 c", "mean")
        return x * rearrange(self.convolution(means).sigmoid(), "b 1 c -> b c 1 1")

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `eca_layer` to ours."""
        return rename(state, {"conv": "convolution"})


def adaptive_kernel(dim: int, *, gamma: int = 2, beta: int = 1) -> int:
    """The adaptive rule's kernel: the whole part of its right side, or the odd number above it."""
    reach = int(abs((math.log2(dim) + beta) / gamma))
    return reach if reach % 2 else reach + 1
