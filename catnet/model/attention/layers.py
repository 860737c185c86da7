"""What several mechanisms share: norm and block on maps, a context on the grid of `x`.

Block: "Attention Is All You Need", Vaswani et al., 2017, arXiv 1706.03762, in the pre-norm order of
"An Image is Worth 16x16 Words", Dosovitskiy et al., ICLR 2021, arXiv 2010.11929:

    y = x + attention(norm(x)),    z = y + W_2 gelu(W_1 norm(y) + b_1) + b_2
"""

from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.ffn import Mlp
from catnet.model.ops import ChannelNorm
from catnet.model.published import State, rename, reshape
from catnet.types import Context, Features

Heads = Annotated[int, Field(description="attention heads, of dim / heads channels each")]
Scale = Annotated[
    float | None,
    Field(ge=-1000, le=1000, description="factor of the logits; None is (dim / heads) ** -0.5"),
]
QkvBias = Annotated[bool, Field(description="whether queries, keys and values have a bias")]
IdentityStart = Annotated[
    bool, Field(description="start as the identity: the last layer is zero at first")
]

BLOCK = {
    "norm1": "attention_norm",
    "norm2": "feed_forward_norm",
    "mlp.fc1": "feed_forward.expand",
    "mlp.fc2": "feed_forward.reduce",
}


class Mechanism(nn.Module):
    """What stands in the zoo's dict: `forward(x, context=None)` gives a map of the shape of `x`.

    paper        short title and arXiv number; a few words where there is no paper
    good_for     what it can and cannot do, in at most 88 letters
    cross        whether a context is meaningful; where it is not, giving one is an error
    aligned      whether x and context must show roughly the same place at the same position
    one_by_one   whether of several contexts (shots) each is attended to by itself, then averaged;
                 so it is wherever `aligned` holds. It may follow from the options
    carries_map  whether `attend` takes the attention map of the round before and hands one on
    needs_map    whether it cannot do without one; it may follow from the options
    published    the authors' parameters and their shapes, for `convert`; see `model.published`
    new_layers   layers of ours that the published weights do not have
    """

    paper: ClassVar[str]
    good_for: ClassVar[str]
    cross: ClassVar[bool] = True
    aligned: ClassVar[bool] = False
    one_by_one: bool = False
    carries_map: ClassVar[bool] = False
    needs_map: bool = False
    published: ClassVar[Mapping[str, str]] = {}
    new_layers: ClassVar[tuple[str, ...]] = ()


class PreNormBlock(nn.Module):
    """A mechanism, then a feed-forward, each behind a norm and each added to what came in."""

    def __init__(self, dim: int, *, attention: nn.Module, mlp_ratio: float, eps: float) -> None:
        super().__init__()
        self.attention_norm = ChannelNorm(dim, eps=eps)
        self.attention = attention
        self.feed_forward_norm = ChannelNorm(dim, eps=eps)
        self.feed_forward = Mlp(dim, ratio=mlp_ratio)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend to `context` (default: `x` itself), then mix the channels; the shape of `x`."""
        context = None if context is None else self.attention_norm(context)
        x = x + self.attention(self.attention_norm(x), context)
        return x + self.feed_forward(self.feed_forward_norm(x))


def seen(x: Features, context: Context | None) -> Context:
    """The context, or `x` itself where there is none.

    Raises `UserError` for a context of another number of episodes or channels.
    """
    if context is None:
        return x
    for what, axis in (("episodes", 0), ("channels", 1)):
        if context.shape[axis] != x.shape[axis]:
            raise UserError(
                f"the context has {context.shape[axis]} {what}, the map that receives has "
                f"{x.shape[axis]}; both need the same"
            )
    return context


def align(context: Context | None, *, like: Features) -> Features:
    """As `seen`; resized bilinearly to the height and width of `like` where they differ."""
    context = seen(like, context)
    size = like.shape[-2:]
    if context.shape[-2:] == size:
        return context
    return F.interpolate(context, size, mode="bilinear", align_corners=False)


def check_place(mechanism: Mechanism) -> None:
    """Raise `UserError` for a mechanism that cannot run at a place of CMAT."""
    if mechanism.needs_map:
        raise UserError(
            f"{type(mechanism).__name__} with these options needs the attention map of an earlier "
            "round, and CMAT's first round has none; leave its option share out"
        )


def check_heads(mechanism: str, *, dim: int, heads: int) -> None:
    """Raise `UserError` unless `heads` heads of equal width make up `dim` channels."""
    if heads < 1 or dim % heads:
        raise UserError(
            f"{mechanism}: heads={heads} does not divide dim={dim}; choose a divisor of dim"
        )


def convert_block(state: State, convert: Callable[[State], State]) -> State:
    """A timm-style block's parameters as a `PreNormBlock`'s; `convert` knows its attention's."""
    inner = {n.removeprefix("attn."): t for n, t in state.items() if n.startswith("attn.")}
    outer = {n: t for n, t in state.items() if not n.startswith("attn.")}
    for name in ("mlp.fc1.weight", "mlp.fc2.weight"):
        if name in outer:
            outer[name] = reshape(name, outer[name], "o i -> o i 1 1")
    return rename(outer, BLOCK) | {f"attention.{n}": t for n, t in convert(inner).items()}
