"""Refiner: the attention map itself is expanded over heads, convolved, and reduced again.

Paper: "Refiner: Refining Self-attention for Vision Transformers", Zhou, Shi, Kang, Yu, Jiang, Li,
Jin, Hou, Feng, 2021, arXiv 2106.03714.

    A = softmax(scale Q K^T)                               + scale A_previous, where one is given
    A' = norm(DLA(A)),   DLA(A) = A + reduce(local(expand(A)))
    y = W (A' V)

DLA (distributed local attention) treats the heads as channels and the n x m map as an image:
expand is a 1x1 convolution to `expansion` times the heads, local a depthwise `kernel` x `kernel`
one, reduce a 1x1 one; batch-norm after each, relu6 after the first two. The refined rows need not
sum to one.

Differs from the authors' code (zhoudaquan/Refiner_ViT): with `share` they ignore the expansion and
the kernel asked for (and take 3 and 3), here both count. Refiner_ViT_S, M, L refine only in every
second block, on the shared map of the block before; here `refine` is on, as in the paper.
Cross form: keys and values are of the context, DLA convolves the n x m map; the context may have
any height and width. Neighbors in the map are neighbors in row-major order, not in the plane. As
refined rows do not sum to one, several contexts in a row would add up: each is attended to alone.
Cost: 2 (n + m) c^2 + 2 n m c as multi-head attention, plus n m H E (2 H + k^2) for H heads,
expansion E, kernel k (n tokens of x, m of context, c channels); training keeps several maps of
H E n m values.
"""

from typing import Annotated, ClassVar

from einops import einsum, rearrange
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.model.attention.layers import (
    Heads,
    Mechanism,
    QkvBias,
    Scale,
    State,
    check_heads,
    rename,
    reshape,
    seen,
)
from catnet.types import Context, Features

MAP_NAMES = {
    "conv_exp": "expand.0",
    "bn1": "expand.1",
    "depth_sep_conv": "local.0",
    "bn2": "local.1",
    "conv_pro": "reduce.0",
    "bn3": "reduce.1",
    "conv": "local.0",
}


class DistributedLocalAttention(nn.Module):
    """Expand, convolve, reduce a map; with `expansion` None, one full convolution and no more.

    The residual is there where the map is expanded and `out_heads` (default: `heads`) equals
    `heads`. The map keeps its size; an even kernel reaches one further to the right and down.
    """

    def __init__(
        self,
        heads: int,
        *,
        out_heads: int | None = None,
        expansion: int | None = 3,
        kernel: int = 3,
    ) -> None:
        super().__init__()
        for option, value in (("expansion", expansion), ("kernel", kernel)):
            if value is not None and value < 1:
                raise UserError(f"refiner: {option}={value} must be at least 1; the paper takes 3")
        out = heads if out_heads is None else out_heads
        self.expand = self.reduce = nn.Identity()
        self.residual = expansion is not None and out == heads
        if expansion is None:
            self.local = nn.Sequential(convolution(heads, out, kernel=kernel))
            return
        wide = heads * expansion
        if expansion > 1:
            layers = convolution(heads, wide), nn.BatchNorm2d(wide), nn.ReLU6()
            self.expand = nn.Sequential(*layers)
        depthwise = convolution(wide, wide, kernel=kernel, groups=wide)
        self.local = nn.Sequential(depthwise, nn.BatchNorm2d(wide), nn.ReLU6())
        self.reduce = nn.Sequential(convolution(wide, out), nn.BatchNorm2d(out))

    def forward(self, attention: Float[Tensor, "b heads n m"]) -> Float[Tensor, "b out n m"]:
        """The refined map."""
        refined = self.reduce(self.local(self.expand(attention)))
        return attention + refined if self.residual else refined

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `DLA` to ours."""
        return rename(state, MAP_NAMES)


class Refiner(Mechanism):
    """Multi-head attention with a refined map, which can be handed on from round to round.

    With `refine` off the map is only added to; with `share` there are no queries and keys, and the
    map of an earlier round is refined in place of an own one: CMAT, whose first round has none,
    refuses that. In training, batch-norm needs a map of more than one value.
    """

    one_by_one: ClassVar[bool] = True
    carries_map: ClassVar[bool] = True
    paper: ClassVar[str] = "Refiner, arXiv 2106.03714"
    good_for: ClassVar[str] = (
        "heads that correct each other's maps, round by round; dear: square of the tokens"
    )
    published: ClassVar[dict[str, str]] = {"qkv.weight": "p c", "proj.weight": "c c"}

    def __init__(
        self,
        dim: int,
        *,
        heads: Heads = 8,
        expansion: Annotated[
            int | None, Field(le=64, description="maps per head; None is one full convolution")
        ] = 3,
        kernel: Annotated[int, Field(le=63, description="side of the map's convolution")] = 3,
        refine: Annotated[bool, Field(description="whether the map is refined")] = True,
        share: Annotated[
            bool, Field(description="refine an earlier round's map; not in CMAT, see above")
        ] = False,
        bias: QkvBias = False,
        scale: Scale = None,
    ) -> None:
        super().__init__()
        check_heads("refiner", dim=dim, heads=heads)
        if share and not refine:
            raise UserError("refiner: share=True refines the shared map and needs refine=True")
        self.heads = heads
        self.share = self.needs_map = share
        self.scale = (dim // heads) ** -0.5 if scale is None else scale
        self.query = None if share else nn.Linear(dim, dim, bias=bias)
        self.key = None if share else nn.Linear(dim, dim, bias=bias)
        self.value = nn.Linear(dim, dim, bias=bias)
        self.project = nn.Linear(dim, dim)
        self.refine = None
        if refine:
            local = DistributedLocalAttention(heads, expansion=expansion, kernel=kernel)
            self.refine = nn.Sequential(local, nn.BatchNorm2d(heads))

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend from every position of `x` to the context (default: `x` itself)."""
        return self.attend(x, context)[0]

    def attend(
        self,
        x: Features,
        context: Context | None = None,
        previous: Float[Tensor, "b heads n m"] | None = None,
    ) -> tuple[Features, Float[Tensor, "b heads n m"]]:
        """The result, and the map to hand on: the refined one, or with `share` the one received.

        Raises `UserError` where `previous` is of another size, or absent though `share` needs it.
        """
        context = seen(x, context)
        value = self.tokens(self.value, context)
        used = self.attention_map(x, context, previous)
        found = rearrange(
            einsum(used, value, "b a n m, b a m d -> b a n d"), "b a n d -> b n (a d)"
        )
        result = rearrange(self.project(found), "b (h w) c -> b c h w", h=x.shape[-2])
        return result, previous if self.share else used

    def attention_map(
        self,
        x: Features,
        context: Context | None = None,
        previous: Float[Tensor, "b heads n m"] | None = None,
    ) -> Float[Tensor, "b heads n m"]:
        """The map that mixes the values; its rows sum to one only with `refine` off."""
        context = seen(x, context)
        self.check(previous, x=x, context=context)
        if self.share:
            return self.refine(previous) * self.scale
        query, key = self.tokens(self.query, x), self.tokens(self.key, context)
        attention = einsum(query * self.scale, key, "b a n d, b a m d -> b a n m").softmax(dim=-1)
        if previous is not None:
            attention = attention + self.scale * previous
        return attention if self.refine is None else self.refine(attention)

    def tokens(self, layer: nn.Linear, x: Features) -> Float[Tensor, "b heads n d"]:
        """A linear layer on every position, split into heads."""
        flat = layer(rearrange(x, "b c h w -> b (h w) c"))
        return rearrange(flat, "b n (heads d) -> b heads n d", heads=self.heads)

    def check(self, previous: Tensor | None, *, x: Tensor, context: Tensor) -> None:
        """Raise `UserError` for a previous map that this round cannot use."""
        if previous is None and self.share:
            raise UserError("refiner: share=True has no map of its own; hand it an earlier round's")
        queries, keys = x.shape[-2] * x.shape[-1], context.shape[-2] * context.shape[-1]
        expected = (x.shape[0], self.heads, queries, keys)
        if previous is not None and previous.shape != expected:
            raise UserError(
                f"refiner: the previous map is {tuple(previous.shape)}, this round's {expected}; "
                "keep heads and sizes between rounds"
            )

    @staticmethod
    def convert(state: State) -> State:
        """Names of the authors' `Refined_Attention` to ours."""
        outer = {n: value for n, value in state.items() if not n.startswith(("qkv.", "DLA."))}
        local = {n[4:]: value for n, value in state.items() if n.startswith("DLA.")}
        ours = rename(outer, {"proj": "project", "adapt_bn": "refine.1"})
        ours |= {f"refine.0.{n}": v for n, v in DistributedLocalAttention.convert(local).items()}
        rows, columns = state["qkv.weight"].shape
        parts = ("value",) if rows == columns else ("query", "key", "value")
        for name in (name for name in state if name.startswith("qkv.")):
            split = reshape(name, state[name], "(p c) ... -> p c ...", p=len(parts))
            kind = name.removeprefix("qkv.")
            ours |= {f"{part}.{kind}": value for part, value in zip(parts, split, strict=True)}
        return ours


def convolution(inputs: int, outputs: int, *, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the size of the map."""
    return nn.Conv2d(inputs, outputs, kernel, padding="same", groups=groups, bias=False)
