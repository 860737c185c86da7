"""Squeeze-and-excitation: one weight per channel, read from the mean of every channel.

Paper: "Squeeze-and-Excitation Networks", Hu, Shen, Albanie, Sun, Wu, CVPR 2018, arXiv 1709.01507.

    y_c = sigmoid(W2 relu(W1 mean(x)))_c x_c,    W1: c -> c / reduction,  W2: back to c

Differs from the reference code (moskomule/senet.pytorch): nothing; no biases, as in the equation.
Cross form: the mean is taken over the context, the weights are applied to `x`; the context may
have any height and width.
Cost: m c to pool, 2 c^2 / reduction for the weights, n c to apply them (n tokens of x, m of
context).
"""

from typing import Annotated, ClassVar

from einops import rearrange, reduce
from pydantic import Field
from torch import nn

from catnet.errors import UserError
from catnet.model.attention.layers import Mechanism, State, rename, seen
from catnet.types import Context, Features


class SqueezeExcitation(Mechanism):
    """Channel weights from global averages."""

    paper: ClassVar[str] = "SENet, arXiv 1709.01507"
    good_for: ClassVar[str] = (
        "channel weights from means: the cheap baseline that a dearer channel gate must beat"
    )
    published: ClassVar[dict[str, str]] = {"fc.0.weight": "r c", "fc.2.weight": "c r"}

    def __init__(
        self,
        dim: int,
        *,
        reduction: Annotated[int, Field(description="dim over the hidden channels")] = 16,
    ) -> None:
        super().__init__()
        if not 1 <= reduction <= dim:
            raise UserError(
                f"se: reduction={reduction} leaves no hidden channel of dim={dim}; "
                f"choose a whole number from 1 to {dim}"
            )
        hidden = dim // reduction
        self.excite = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, dim, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Weigh the channels of `x` by what the context (default: `x` itself) holds on average."""
        squeezed = reduce(seen(x, context), "b c i j -> b c", "mean")
        return x * rearrange(self.excite(squeezed), "b c -> b c 1 1")

    @staticmethod
    def convert(state: State) -> State:
        """Names of moskomule's `SELayer` to ours."""
        return rename(state, {"fc.0": "excite.0", "fc.2": "excite.2"})
