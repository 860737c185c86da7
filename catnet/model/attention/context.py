"""Global context: one descriptor of the whole map, transformed, and given to every position alike.

Paper: "GCNet: Non-local Networks Meet Squeeze-Excitation Networks and Beyond", Cao, Xu, Lin, Wei,
Hu, ICCV workshops 2019, arXiv 1904.11492.

    g = sum_j softmax_j(w x_j) x_j                     or the mean over the positions
    t(g) = W2 relu(layer_norm(W1 g))                   c -> ratio c -> c
    y_i = x_i + t(g)      (add),       y_i = sigmoid(t(g)) x_i      (multiply)

"both" multiplies first and then adds, with a transform each.

Differs from the authors' code (xvjiarui/GCNet): w has no bias, the softmax cancels it. Their last
layer starts at zero, because the block goes into a trained network; here it does so only with
`identity_start`, since a zero there keeps the context out of the result, and the gradient out of
all else, until the first step.
Cross form: the context is pooled, `x` receives; the context may have any height and width.
Cost: 2 m c to pool, 2 ratio c^2 for the transform, n c to apply it (n tokens of x, m of context).
"""

from typing import Annotated, ClassVar

from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.model.attention.layers import (
    IdentityStart,
    Mechanism,
    State,
    rename,
    reshape,
    seen,
)
from catnet.types import Context, Features

POOLING = ("attention", "average")
FUSION = ("add", "multiply", "both")
NAMES = {"conv_mask": "where"}
NAMES |= {f"channel_add_conv.{layer}": f"add.{layer}" for layer in (0, 1, 3)}
NAMES |= {f"channel_mul_conv.{layer}": f"multiply.{layer}" for layer in (0, 1, 3)}
SHAPES = {3: "c 1 1 -> c", 4: "o i 1 1 -> o i"}
CANCELLED = ("conv_mask.bias",)  # a constant in front of a softmax


class GlobalContext(Mechanism):
    """The query-independent simplification of the non-local block."""

    paper: ClassVar[str] = "GCNet, arXiv 1904.11492"
    good_for: ClassVar[str] = (
        "one descriptor of the whole map, added everywhere; cannot tell positions apart"
    )
    published: ClassVar[dict[str, str]] = {
        r"channel_(add|mul)_conv\.0\.weight": "r c 1 1",
        r"channel_(add|mul)_conv\.0\.bias": "r",
        r"channel_(add|mul)_conv\.1\.(weight|bias)": "r 1 1",
        r"channel_(add|mul)_conv\.3\.weight": "c r 1 1",
        r"channel_(add|mul)_conv\.3\.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        ratio: Annotated[float, Field(le=16, description="hidden channels over dim")] = 0.25,
        pooling: Annotated[str, Field(description="attention or average")] = "attention",
        fusion: Annotated[str, Field(description="add, multiply or both")] = "add",
        identity_start: IdentityStart = False,
    ) -> None:
        super().__init__()
        if pooling not in POOLING:
            raise UserError(f"gc: pooling={pooling!r} is unknown; choose {' or '.join(POOLING)}")
        if fusion not in FUSION:
            raise UserError(f"gc: fusion={fusion!r} is unknown; choose one of {', '.join(FUSION)}")
        hidden = int(dim * ratio)
        if hidden < 2:
            raise UserError(
                f"gc: ratio={ratio} leaves {hidden} of dim={dim} channels, layer-norm needs two; "
                f"choose a ratio of {2 / dim:g} or more"
            )
        self.where = nn.Linear(dim, 1, bias=False) if pooling == "attention" else None
        self.multiply = None if fusion == "add" else transform(dim, hidden, zero=identity_start)
        self.add = None if fusion == "multiply" else transform(dim, hidden, zero=identity_start)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Give every position of `x` the one descriptor of the context (default: `x` itself)."""
        context = seen(x, context)
        weights = rearrange(self.weights(context), "b i j -> b (i j) 1")
        pooled = rearrange(rearrange(context, "b c i j -> b c (i j)") @ weights, "b c 1 -> b c")
        if self.multiply is not None:
            x = x * rearrange(self.multiply(pooled).sigmoid(), "b c -> b c 1 1")
        if self.add is not None:
            x = x + rearrange(self.add(pooled), "b c -> b c 1 1")
        return x

    def weights(self, context: Context) -> Float[Tensor, "b i j"]:
        """How much each position counts in the descriptor; sums to one."""
        rows, columns = context.shape[-2:]
        if self.where is None:
            return context.new_full((len(context), rows, columns), 1 / (rows * columns))
        logits = self.where.weight @ rearrange(context, "b c i j -> b c (i j)")
        return rearrange(logits.softmax(dim=-1), "b 1 (i j) -> b i j", i=rows)

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b 1 n m"]:
        """The weights, which are the same for every query; rows sum to one."""
        weights = self.weights(seen(x, context))
        queries = x.shape[-2] * x.shape[-1]
        return repeat(weights, "b i j -> b 1 n (i j)", n=queries)

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `ContextBlock` to ours."""
        kept = {name: value for name, value in state.items() if name not in CANCELLED}
        flat = {
            name: reshape(name, value, SHAPES.get(value.ndim, "c -> c"))
            for name, value in kept.items()
        }
        return rename(flat, NAMES)


def transform(dim: int, hidden: int, *, zero: bool) -> nn.Sequential:
    """The paper's t; with `zero` it starts at zero."""
    last = nn.Linear(hidden, dim)
    if zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(dim, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)
