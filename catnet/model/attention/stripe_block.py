"""GRL's transformer block: mixed attention, channel attention enhanced convolution, feed-forward.

Paper: "Efficient and Explicit Modelling of Image Hierarchies for Image Restoration", Li et al.,
CVPR 2023, arXiv 2303.00748; the channel attention after RCAN, Zhang et al., ECCV 2018, arXiv
1807.02758.

    CAB(x) = u sigmoid(W_2 relu(W_1 mean(u))),    u = K_2 * gelu(K_1 * x)
    y = x + r norm(attention(x)) + CAB(x),    z = y + r norm(mlp(y))          r: residual scale

Differs from the authors' code: no dropout and no stochastic depth.
"""

from einops import reduce
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import ChannelNorm, rename
from catnet.model.attention.stripe import StripeAttention, as_convolution
from catnet.model.ffn import Mlp
from catnet.types import Context, Features

CHANNEL_NAMES = {
    "cab.0": "compress",
    "cab.2": "expand",
    "cab.3.attention.1": "squeeze",
    "cab.3.attention.3": "excite",
}
BLOCK_NAMES = {
    "norm1": "attention_norm",
    "norm2": "feed_forward_norm",
    "mlp.fc1": "feed_forward.expand",
    "mlp.fc2": "feed_forward.reduce",
}


class ChannelAttentionBlock(nn.Module):
    """Two 3x3 convolutions with a waist of dim / `compress`, then a weight for every channel."""

    def __init__(self, dim: int, *, compress: int = 4, reduction: int = 18) -> None:
        super().__init__()
        for option, value in (("compress", compress), ("reduction", reduction)):
            if not 1 <= value <= dim:
                raise UserError(
                    f"channel attention block: {option}={value} must be from 1 to dim={dim}"
                )
        self.compress = nn.Conv2d(dim, dim // compress, 3, padding=1)
        self.expand = nn.Conv2d(dim // compress, dim, 3, padding=1)
        self.squeeze = nn.Conv2d(dim, dim // reduction, 1)
        self.excite = nn.Conv2d(dim // reduction, dim, 1)

    def forward(self, x: Features) -> Features:
        """Convolve, then weigh the channels by what they are on average; no residual here."""
        features = self.expand(F.gelu(self.compress(x)))
        mean = reduce(features, "b c h w -> b c 1 1", "mean")
        return features * self.excite(F.relu(self.squeeze(mean))).sigmoid()

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' CAB to ours."""
        return rename(state, CHANNEL_NAMES)


class GRLBlock(nn.Module):
    """`attention`, then a feed-forward, each normed behind and added to what came in.

    `local_connection` adds the channel attention block of `x`, neither normed nor scaled.
    """

    def __init__(
        self,
        dim: int,
        *,
        attention: StripeAttention,
        mlp_ratio: float | int = 2.0,
        local_connection: bool = True,
        residual_scale: float | int = 1.0,
    ) -> None:
        super().__init__()
        self.residual_scale = residual_scale
        self.attention = attention
        self.attention_norm = ChannelNorm(dim)
        self.local = ChannelAttentionBlock(dim) if local_connection else None
        self.feed_forward = Mlp(dim, ratio=mlp_ratio)
        self.feed_forward_norm = ChannelNorm(dim)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend to `context` (default: `x` itself), then mix the channels; the shape of `x`."""
        attended = self.residual_scale * self.attention_norm(self.attention(x, context))
        x = x + attended if self.local is None else x + attended + self.local(x)
        return x + self.residual_scale * self.feed_forward_norm(self.feed_forward(x))

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' EfficientMixAttnTransformerBlock to ours."""
        attention = {n.removeprefix("attn."): t for n, t in state.items() if n.startswith("attn.")}
        local = {n.removeprefix("conv."): t for n, t in state.items() if n.startswith("conv.")}
        inner = ("attn.", "conv.")
        outer = rename({n: t for n, t in state.items() if not n.startswith(inner)}, BLOCK_NAMES)
        return (
            {f"attention.{n}": t for n, t in StripeAttention.convert(attention).items()}
            | {f"local.{n}": t for n, t in ChannelAttentionBlock.convert(local).items()}
            | {n: as_convolution(n, t) for n, t in outer.items()}
        )
