"""Feed-forward networks on maps, by name: what a block applies to every token after attention.

Paper of `conv`: "Rethinking Local Perception in Lightweight Vision Transformer", Fan et al., 2023,
arXiv 2303.17803 (CloFormer).

    mlp     W2 GELU(W1 x)                    at every position alone
    conv    W2 (K * GELU(W1 x))              K: a k x k kernel per hidden channel, zeros around

Differs from the authors' code: no dropout. Cost: 2 r n c^2 multiply-adds for n positions of c
channels, and `conv` r n c k^2 more (r: `ratio`).
"""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.types import Features

EXACT = 1e-12  # relative: what a product of floats may lack of a whole number


class Mlp(nn.Module):
    """1x1 convolution, GELU, 1x1 convolution; `ratio * dim` hidden channels."""

    def __init__(self, dim: int, *, ratio: float | int = 4.0) -> None:
        super().__init__()
        hidden = hidden_channels(dim, ratio)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.reduce = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Features) -> Features:
        """Every position on its own."""
        return self.reduce(F.gelu(self.expand(x)))


class ConvFFN(nn.Module):
    """`Mlp` with a depthwise convolution before its last layer; `stride` shrinks the map.

    `out_dim` channels come out, `dim` where it is None; ceil(h / stride) by ceil(w / stride).
    """

    def __init__(
        self,
        dim: int,
        *,
        ratio: float | int = 4.0,
        kernel: int = 5,
        stride: int = 1,
        out_dim: int | None = None,
    ) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"ConvFFN: kernel={kernel} must be odd and positive")
        if stride < 1:
            raise UserError(f"ConvFFN: stride={stride} must be at least 1")
        hidden = hidden_channels(dim, ratio)
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.mix = nn.Conv2d(
            hidden, hidden, kernel, stride=stride, padding=kernel // 2, groups=hidden
        )
        self.reduce = nn.Conv2d(hidden, out_dim or dim, 1)

    def forward(self, x: Features) -> Float[Tensor, "b out i j"]:
        """Every position with its neighbors."""
        return self.reduce(self.mix(F.gelu(self.expand(x))))

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors' parameter names (their `ConvFFN`) to ours."""
        ours = {"fc1": "expand", "dwconv": "mix", "fc2": "reduce"}
        names = {name: name.split(".") for name in state}
        return {f"{ours[layer]}.{kind}": state[name] for name, (layer, kind) in names.items()}


def hidden_channels(dim: int, ratio: float | int) -> int:
    """`ratio * dim`, rounded down; raises `UserError` where none is left.

    A ratio that is a quotient of whole numbers, such as 29 / 25, gives back its numerator.
    """
    hidden = int(dim * ratio * (1 + EXACT))
    if hidden < 1:
        raise UserError(f"feed-forward network: ratio={ratio} leaves no channel of dim={dim}")
    return hidden


FFN: dict[str, type[nn.Module]] = {"mlp": Mlp, "conv": ConvFFN}
