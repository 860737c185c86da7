"""CloFormer's block: attention, then a feed-forward that mixes neighbors, with an optional stride.

Paper: "Rethinking Local Perception in Lightweight Vision Transformer", Fan, Huang, Guan, He, 2023,
arXiv 2303.17803.

    y = x + attention(norm(x)),    z = shortcut(y) + ConvFFN(norm(y))

Differs from the authors' code: no dropout, no stochastic depth; batch norm is the plain one.
"""

from jaxtyping import Float
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.model.attention.cloformer import CloAttention
from catnet.model.attention.layers import rename
from catnet.model.ffn import ConvFFN
from catnet.types import Context, Features

BLOCK_NAMES = {
    "norm1": "attention_norm",
    "norm2": "feed_forward_norm",
    **{f"downsample.{step}": f"shortcut.{step}" for step in range(3)},
}


class CloBlock(nn.Module):
    """Attention, then ConvFFN, each behind a norm of the whole map and added to what came in.

    `stride` 2 halves the map (rounded up); `out_dim` channels come out, `dim` where it is None.
    """

    def __init__(
        self,
        dim: int,
        *,
        attention: CloAttention,
        ratio: float | int = 4.0,
        kernel: int = 5,
        stride: int = 1,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        out_dim = out_dim or dim
        if stride == 1 and out_dim != dim:
            raise UserError(f"CloBlock: with stride=1, out_dim={out_dim} must be dim={dim}")
        self.attention_norm = nn.GroupNorm(1, dim)
        self.attention = attention
        self.feed_forward_norm = nn.GroupNorm(1, dim)
        self.feed_forward = ConvFFN(dim, ratio=ratio, kernel=kernel, stride=stride, out_dim=out_dim)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(dim, dim, kernel, stride=stride, padding=kernel // 2),
                nn.BatchNorm2d(dim),
                nn.Conv2d(dim, out_dim, 1),
            )

    def forward(self, x: Features, context: Context | None = None) -> Float[Tensor, "b out k l"]:
        """Attend to `context` (default: `x` itself), then mix channels and neighbors."""
        context = None if context is None else self.attention_norm(context)
        x = x + self.attention(self.attention_norm(x), context)
        return self.shortcut(x) + self.feed_forward(self.feed_forward_norm(x))

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' EfficientBlock to ours."""
        attention = {n.removeprefix("attn."): t for n, t in state.items() if n.startswith("attn.")}
        mlp = {n.removeprefix("mlp."): t for n, t in state.items() if n.startswith("mlp.")}
        outer = {n: t for n, t in state.items() if not n.startswith(("attn.", "mlp."))}
        return (
            {f"attention.{n}": t for n, t in CloAttention.convert(attention).items()}
            | {f"feed_forward.{n}": t for n, t in ConvFFN.convert(mlp).items()}
            | rename(outer, BLOCK_NAMES)
        )
