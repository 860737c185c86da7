"""Channel weights from several poolings, then a weight per position from the channels' extremes.

Paper: "CBAM: Convolutional Block Attention Module", Woo, Park, Lee, Kweon, ECCV 2018,
arXiv 1807.06521.

    u = sigmoid(sum_pool MLP(pool(x))) x
    y = sigmoid(norm(conv_k([max_c u, mean_c u]))) u

Pools over the positions: avg, max, lp (the Euclidean norm), lse (log-sum-exp); the paper takes avg
and max.

Differs from the authors' code (Jongchan/attention-module): the gradient of lp is 0 at an all-zero
channel, theirs is NaN. The batch-norm before the second sigmoid is in their code, not in the paper.
Cross form: the poolings see the context, the channel weights are applied to `x`; the spatial
weights stay a matter of `x`. The context may have any height and width. lp and lse grow with the
number of positions, so with either several contexts in a row are seen one by one.
Cost: m c a pool, 2 c^2 / reduction a pool for the MLP, 2 k^2 n for the convolution (n tokens of x,
m of context).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from einops import pack, rearrange, reduce
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.model.attention.layers import Mechanism, State, rename, seen
from catnet.types import Context, Features

POOLS = ("avg", "max", "lp", "lse")
NAMES = {
    "ChannelGate.mlp.1": "excite.0",
    "ChannelGate.mlp.3": "excite.2",
    "SpatialGate.spatial.conv": "locate.0",
    "SpatialGate.spatial.bn": "locate.1",
}


class CBAM(Mechanism):
    """Channel gate, then (unless `spatial` is off) spatial gate; neither has a residual.

    In training, batch-norm needs more than one position in the batch.
    """

    paper: ClassVar[str] = "CBAM, arXiv 1807.06521"
    good_for: ClassVar[str] = "channel weights from means and maxima, then one weight a position"
    published: ClassVar[dict[str, str]] = {
        "ChannelGate.mlp.1.weight": "r c",
        "ChannelGate.mlp.1.bias": "r",
        "ChannelGate.mlp.3.weight": "c r",
        "ChannelGate.mlp.3.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        reduction: Annotated[int, Field(description="dim over the hidden channels")] = 16,
        pools: Annotated[Sequence[str], Field(description="some of avg, max, lp, lse")] = (
            "avg",
            "max",
        ),
        spatial: Annotated[bool, Field(description="the second step, a weight a position")] = True,
        kernel: Annotated[int, Field(le=127, description="side of its convolution, odd")] = 7,
    ) -> None:
        super().__init__()
        check(dim, reduction=reduction, pools=pools, kernel=kernel)
        self.pools = tuple(pools)
        self.one_by_one = not set(pools) <= {"avg", "max"}
        hidden = dim // reduction
        self.excite = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.locate = None
        if spatial:
            convolution = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)
            self.locate = nn.Sequential(convolution, nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Weigh the channels of `x` by the context (default: `x`), then its positions by itself."""
        x = x * self.channel_weights(seen(x, context))
        if self.locate is None:
            return x
        summary, _ = pack(
            [reduce(x, "b c h w -> b h w", how) for how in ("max", "mean")], "b * h w"
        )
        return x * self.locate(summary)

    def channel_weights(self, context: Features) -> Float[Tensor, "b c 1 1"]:
        """One weight in (0, 1) per channel."""
        score = sum(self.excite(pool(context, how)) for how in self.pools)
        return rearrange(torch.sigmoid(score), "b c -> b c 1 1")

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `CBAM` to ours."""
        return rename(state, NAMES)


def pool(x: Features, how: str) -> Float[Tensor, "b c"]:
    """All positions of a channel as one number."""
    if how == "lp":
        return torch.linalg.vector_norm(x, dim=(-2, -1))
    if how == "lse":
        return torch.logsumexp(x, dim=(-2, -1))
    return reduce(x, "b c h w -> b c", "mean" if how == "avg" else how)


def check(dim: int, *, reduction: int, pools: Sequence[str], kernel: int) -> None:
    """Raise `UserError` for options that make no gate."""
    if not 1 <= reduction <= dim:
        raise UserError(
            f"cbam: reduction={reduction} leaves no hidden channel of dim={dim}; "
            f"choose a whole number from 1 to {dim}"
        )
    if not pools or not set(pools) <= set(POOLS):
        raise UserError(f"cbam: pools={list(pools)} must name one or more of {', '.join(POOLS)}")
    if kernel < 1 or kernel % 2 == 0:
        raise UserError(f"cbam: kernel={kernel} must be odd and positive; the paper takes 7")
