"""Double attention: gather the whole map into a few descriptors, then hand them to each position.

Paper: "A^2-Nets: Double Attention Networks", Chen, Kalantidis, Li, Yan, Feng, NeurIPS 2018,
arXiv 1810.11579.

    G = A(x) softmax_positions(B(x))^T      features x maps: what the whole map holds
    Z = G softmax_maps(V(x))                each position takes its share of the descriptors
    y = x + W(Z)                            back to all channels, and the residual

A, B, V, W are 1x1 convolutions.

Differs from the code at hand (gjylt/DoubleAttentionNet, no code of the authors was found): that
code stops at Z; `gather_and_distribute` is this part. B has no bias, the softmax over positions
cancels it.
Cross form: A and B see the context (it is gathered), V sees `x` (which distributes); the context
may have any height and width.
Cost: (f + k) m c + k n c + f n c for the convolutions, f k (n + m) for the two products (n tokens
of x, m of context, c channels, f features, k maps): linear in the positions.
"""

from typing import Annotated, ClassVar

from einops import einsum, rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.model.attention.layers import Mechanism, State, rename, seen
from catnet.model.options import WIDEST
from catnet.types import Context, Features

NAMES = {"convA": "feature", "convB": "gather", "convV": "distribute"}
CANCELLED = ("convB.bias",)  # a constant in front of a softmax


class DoubleAttention(Mechanism):
    """`features` is the width of A, `maps` that of B and V; each defaults to a quarter of `dim`."""

    paper: ClassVar[str] = "A2-Nets, arXiv 1810.11579"
    good_for: ClassVar[str] = (
        "the whole map through dim / 4 descriptors; global at a cost linear in the tokens"
    )
    published: ClassVar[dict[str, str]] = {
        "convA.weight": "f c 1 1",
        "convA.bias": "f",
        "convB.weight": "k c 1 1",
        "convV.weight": "k c 1 1",
        "convV.bias": "k",
    }
    new_layers: ClassVar[tuple[str, ...]] = ("expand",)

    def __init__(
        self,
        dim: int,
        *,
        features: Annotated[
            int | None, Field(le=WIDEST, description="channels of a descriptor; None is dim / 4")
        ] = None,
        maps: Annotated[
            int | None, Field(le=WIDEST, description="number of descriptors; None is dim / 4")
        ] = None,
    ) -> None:
        super().__init__()
        features = max(dim // 4, 1) if features is None else features
        maps = max(dim // 4, 1) if maps is None else maps
        for option, width in (("features", features), ("maps", maps)):
            if width < 1:
                raise UserError(
                    f"a2: {option}={width} must be at least 1; leave it out for dim / 4"
                )
        self.feature = nn.Conv2d(dim, features, 1)
        self.gather = nn.Conv2d(dim, maps, 1, bias=False)
        self.distribute = nn.Conv2d(dim, maps, 1)
        self.expand = nn.Conv2d(features, dim, 1)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Add to every position of `x` its mixture of what the context (default: `x`) holds."""
        return x + self.expand(self.gather_and_distribute(x, context))

    def gather_and_distribute(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b features h w"]:
        """The paper's Z, before the expansion to all channels."""
        context = seen(x, context)
        feature = rearrange(self.feature(context), "b f i j -> b f (i j)")
        descriptors = einsum(feature, self.where(context), "b f m, b k m -> b f k")
        return einsum(descriptors, self.which(x), "b f k, b k h w -> b f h w")

    def where(self, context: Context) -> Float[Tensor, "b maps m"]:
        """Where each map looks: sums to one over the positions."""
        return rearrange(self.gather(context), "b k i j -> b k (i j)").softmax(dim=-1)

    def which(self, x: Features) -> Float[Tensor, "b maps h w"]:
        """Which descriptors a position takes: sums to one over the maps."""
        return self.distribute(x).softmax(dim=1)

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b 1 n m"]:
        """The product of both attentions: rows over the context's positions, which sum to one."""
        where = self.where(seen(x, context))
        which = rearrange(self.which(x), "b k h w -> b k (h w)")
        return rearrange(einsum(which, where, "b k n, b k m -> b n m"), "b n m -> b 1 n m")

    @staticmethod
    def convert(state: State) -> State:
        """Names of gjylt's `DoubleAttentionLayer` to ours; that layer has no `expand`."""
        kept = {name: value for name, value in state.items() if name not in CANCELLED}
        return rename(kept, NAMES)
