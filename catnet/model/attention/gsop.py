"""Second-order pooling: weights from how channels, or positions, vary together.

Paper: "Global Second-order Pooling Convolutional Networks", Gao, Xie, Wang, Li, CVPR 2019,
arXiv 1811.12006.

    channel    F = relu(norm(conv(relu(x)))), d x M;  S = (F - mean_M)(F - mean_M)^T / M, d x d
    spatial    F = pool_8x8(norm(conv(relu(x)))), d x 64;  S = (F - mean_d)^T (F - mean_d) / d
    weights    sigmoid(W rows(norm(S)));  rows: four numbers from each row of S, each by its own
    y          weights x;  "both" takes the mean of the two

Differs from the authors' code (ZilinGao/Global-Second-order-Pooling-Convolutional-Networks):
spatial, they divide the sums over d channels by the 64 positions, so S is neither centered nor
scaled unless d = 64; `divide_by="positions"` does the same and is meant for their weights only.
They follow the spatial weights by a relu, which their bottleneck needs and this signed result does
not; "both" is called an average there and is a sum. They halve early maps (conv with stride 2, up
to 256 channels) to save time: `stride`. Between rows and W the channel path has no activation and
the spatial path a relu, as theirs.
Cross form: channel, S is of the context and the weights are applied to `x`. Spatial, S holds the
products of x's positions (rows) with the context's (columns), so a position's weight comes from
how it varies with the whole context; S stays 64 x 64. The context may have any height and width.
A stride or a grid would straddle several contexts in a row, so with either each is seen alone.
Cost: channel M c d + M d^2 + 4 d^2 + 4 d c; spatial (n + m) c d + 64^2 d + 8 x 64^2, with n for
n + m where x is its own context (n tokens of x, m of context, c channels, M = m / stride^2), and
n c to apply the weights.
"""

from typing import Annotated, ClassVar

from einops import einsum, rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import Mechanism, State, rename, reshape, seen
from catnet.types import Context, Features

MODES = ("channel", "spatial", "both")
DIVISORS = ("channels", "positions")
NAMES = {
    "conv_for_DR": "channel.reduce.1",
    "bn_for_DR": "channel.reduce.2",
    "row_bn": "channel.excite.0",
    "row_conv_group": "channel.excite.1",
    "fc_adapt_channels": "channel.excite.3",
    "conv_for_DR_spatial": "spatial.reduce.1",
    "bn_for_DR_spatial": "spatial.reduce.2",
    "row_bn_for_spatial": "spatial.excite.0",
    "row_conv_group_for_spatial": "spatial.excite.1",
    "fc_adapt_channels_for_spatial": "spatial.excite.3",
}


class GSoP(Mechanism):
    """`channels` is the paper's reduced width d; `grid` the side of the spatial path's 8 x 8 map.

    In training, batch-norm needs more than one position in the batch.
    """

    paper: ClassVar[str] = "GSoP-Net, arXiv 1811.12006"
    good_for: ClassVar[str] = (
        "channel weights from how channels vary together; blind to where (mode: channel)"
    )
    published: ClassVar[dict[str, str]] = {
        r"(b\.)?conv_for_DR(_spatial)?\.weight": "d c 1 1",
        r"(b\.)?conv_for_DR(_spatial)?\.bias": "d",
        r"(b\.)?bn_for_DR(_spatial)?\.(weight|bias|running_mean|running_var)": "d",
    }

    def __init__(
        self,
        dim: int,
        *,
        mode: Annotated[str, Field(description="channel, spatial or both")] = "channel",
        channels: Annotated[int, Field(le=2048, description="reduced width d")] = 128,
        stride: Annotated[int, Field(le=1024, description="of the channel path's input")] = 1,
        grid: Annotated[int, Field(le=32, description="side of the spatial path's map")] = 8,
        divide_by: Annotated[
            str, Field(description="spatial: channels, or positions as the authors' code does")
        ] = "channels",
    ) -> None:
        super().__init__()
        if mode not in MODES:
            raise UserError(f"gsop: mode={mode!r} is unknown; choose one of {', '.join(MODES)}")
        if divide_by not in DIVISORS:
            raise UserError(
                f"gsop: divide_by={divide_by!r} is unknown; choose {' or '.join(DIVISORS)}"
            )
        for option, value, least in (
            ("channels", channels, 2),
            ("stride", stride, 1),
            ("grid", grid, 2),
        ):
            if value < least:
                raise UserError(f"gsop: {option}={value} must be at least {least}; raise it")
        self.one_by_one = mode != "channel" or stride > 1
        self.channel = self.spatial = None
        if mode != "spatial":
            self.channel = ChannelWeights(dim, channels=channels, stride=stride)
        if mode != "channel":
            self.spatial = SpatialWeights(dim, channels=channels, grid=grid, divide_by=divide_by)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Weigh the channels and/or positions of `x` by the context's statistics (default: x's)."""
        if self.spatial is None:
            return x * self.channel(seen(x, context))
        if self.channel is None:
            return x * self.spatial(x, context)
        return x * (self.channel(seen(x, context)) + self.spatial(x, context)) / 2

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `Bottleneck` (its attention layers, prefix `b.`) to ours."""
        ours = rename({n.removeprefix("b."): value for n, value in state.items()}, NAMES)
        for name, value in ours.items():
            if "excite" in name and value.ndim == 4:
                ours[name] = reshape(name, value, "o i k 1 -> o i k")
        return ours


class ChannelWeights(nn.Module):
    """One weight per channel from the covariance of the reduced channels over the positions."""

    def __init__(self, dim: int, *, channels: int, stride: int) -> None:
        super().__init__()
        convolution = nn.Conv2d(dim, channels, 1, stride=stride)
        self.reduce = nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels), nn.ReLU())
        self.excite = excitation(channels, dim, between=nn.Identity())

    def forward(self, x: Features) -> Float[Tensor, "b c 1 1"]:
        """Weights in (0, 1)."""
        reduced = rearrange(self.reduce(x), "b d i j -> b d (i j)")
        centered = reduced - reduced.mean(dim=-1, keepdim=True)
        covariance = einsum(centered, centered / reduced.shape[-1], "b d m, b e m -> b d e")
        return rearrange(self.excite(covariance), "b c 1 -> b c 1 1")


class SpatialWeights(nn.Module):
    """One weight per cell of a grid from how the cells vary together over the reduced channels."""

    def __init__(self, dim: int, *, channels: int, grid: int, divide_by: str) -> None:
        super().__init__()
        self.grid = grid
        self.divisor = channels if divide_by == "channels" else grid**2
        convolution = nn.Conv2d(dim, channels, 1)
        self.reduce = nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels))
        self.excite = excitation(grid**2, grid**2, between=nn.ReLU())

    def forward(self, x: Features, context: Context | None = None) -> Float[Tensor, "b 1 h w"]:
        """Weights in (0, 1), spread from the grid over x's height and width."""
        ours = self.cells(x)
        theirs = ours if context is None else self.cells(seen(x, context))
        products = einsum(ours, theirs / self.divisor, "b d n, b d m -> b n m")
        means = [cells.sum(dim=1) / self.divisor for cells in (ours, theirs)]
        covariance = products - einsum(*means, "b n, b m -> b n m")
        weights = rearrange(self.excite(covariance), "b (h w) 1 -> b 1 h w", h=self.grid)
        return F.adaptive_avg_pool2d(weights, x.shape[-2:])

    def cells(self, x: Features) -> Float[Tensor, "b d cells"]:
        """The reduced map, averaged (or, where it is smaller, repeated) to the grid."""
        pooled = F.adaptive_avg_pool2d(self.reduce(x), self.grid)
        return rearrange(pooled, "b d h w -> b d (h w)")


def excitation(size: int, out: int, *, between: nn.Module) -> nn.Sequential:
    """From (b, size, size) to (b, out, 1): each row by its own filters, then all rows together."""
    rows = nn.Conv1d(size, 4 * size, size, groups=size)
    return nn.Sequential(
        nn.BatchNorm1d(size), rows, between, nn.Conv1d(4 * size, out, 1), nn.Sigmoid()
    )
