"""Global sub-sampled attention: every position attends to one key per cell of the map.

Paper: "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", Chu, Tian, Wang,
Zhang, Ren, Wei, Xia, Shen, NeurIPS 2021, arXiv 2104.13840.

    y = W_P softmax(scale * Q K_r^T) V_r,    [K_r V_r] = W_KV norm(reduce(context)), r x r cells

Cells start at the top left and do not overlap. Positions right of or below the last whole cell are
queries but no keys; a map shorter than a cell is extended to one by repeating its last row or
column.

Differs from the authors' code: a map shorter than a cell is an error there. They published the
strided convolution only; average pooling and the depthwise strided convolution, which the paper
compares it with, stand here before the same norm.

Cross form: queries from `x`, keys and values from a context of any height and width. A cell could
straddle two contexts in a row, so at a `ratio` above 1 each is attended to alone.

Cost: 2 n c^2 + 2 (n + c) m c / r^2 multiply-adds for n tokens of c channels and m of context, and
m c^2 more for the strided convolution.
"""

from typing import Annotated, ClassVar

from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import (
    ChannelNorm,
    Heads,
    Mechanism,
    QkvBias,
    Scale,
    check_heads,
    rename,
    seen,
)
from catnet.types import Context, Features

LARGEST = 32  # cells of a convolution, which has (ratio dim)^2 weights
REDUCTIONS = ("convolution", "average", "depthwise")


class GlobalSubsampledAttention(Mechanism):
    """Multi-head attention of every position to one key per cell of `ratio` x `ratio` positions.

    `reduce` makes a cell one position: "convolution", "average" or "depthwise" (convolution); at
    `ratio` 1 there is none. The Twins models take 8, 4, 2, 1 in stages of stride 4, 8, 16, 32.
    """

    paper: ClassVar[str] = "Twins, arXiv 2104.13840"
    good_for: ClassVar[str] = (
        "global attention to one key per 4 x 4 cell; what is smaller than a cell shares its key"
    )
    published: ClassVar[dict[str, str]] = {
        "q.weight": "c c",
        "kv.weight": "2*c c",
        "proj.weight": "c c",
        "proj.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        heads: Heads = 8,
        ratio: Annotated[int, Field(le=1024, description="side of a cell, in tokens")] = 4,
        reduce: Annotated[
            str, Field(description="a cell to a token: convolution, average or depthwise")
        ] = "convolution",
        qkv_bias: QkvBias = True,
        scale: Scale = None,
    ) -> None:
        super().__init__()
        check_heads("gsa", dim=dim, heads=heads)
        if ratio < 1:
            raise UserError(f"gsa: ratio={ratio} is no size of a cell; choose 1 or more")
        if reduce == "convolution" and ratio > LARGEST:
            raise UserError(
                f"gsa: ratio={ratio} asks for a {ratio} x {ratio} convolution of all channels; "
                f"choose at most {LARGEST}, or another reduce"
            )
        if reduce not in REDUCTIONS:
            raise UserError(f"gsa: reduce={reduce!r} is unknown; choose {', '.join(REDUCTIONS)}")
        self.heads, self.ratio = heads, ratio
        self.one_by_one = ratio > 1
        self.scale = (dim // heads) ** -0.5 if scale is None else scale
        self.query = nn.Linear(dim, dim, bias=qkv_bias)
        if ratio > 1:
            self.reduce = reduction(reduce, dim=dim, ratio=ratio)
            self.norm = ChannelNorm(dim)
        self.key_value = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend from every position of `x` to the cells of `context` (default: `x` itself)."""
        query, key, value = self.projections(x, self.cells(seen(x, context)))
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        mixed = self.project(rearrange(mixed, "b heads n d -> b n (heads d)"))
        return rearrange(mixed, "b (h w) c -> b c h w", h=x.shape[-2])

    def cells(self, context: Features) -> Context:
        """The context with one position per cell."""
        if self.ratio == 1:
            return context
        height, width = context.shape[-2:]
        lacking = (0, max(self.ratio - width, 0), 0, max(self.ratio - height, 0))
        if any(lacking):
            context = F.pad(context, lacking, mode="replicate")
        return self.norm(self.reduce(context))

    def projections(self, x: Features, cells: Context) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, heads, n, d), keys and values (b, heads, cells, d)."""
        query = self.query(rearrange(x, "b c h w -> b (h w) c"))
        key, value = self.key_value(rearrange(cells, "b c i j -> b (i j) c")).chunk(2, dim=-1)
        query, key, value = [
            rearrange(part, "b n (heads d) -> b heads n d", heads=self.heads)
            for part in (query, key, value)
        ]
        return query, key, value

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b heads n m"]:
        """Weights over all positions of the context; a cell's is shared evenly by its positions.

        Rows sum to one; positions beyond the last whole cell have weight zero.
        """
        context = seen(x, context)
        height, width = context.shape[-2:]
        cells = self.cells(context)
        query, key, _ = self.projections(x, cells)
        weights = (self.scale * query @ key.mT).softmax(dim=-1)
        high, wide = min(self.ratio, height), min(self.ratio, width)
        weights = repeat(
            weights / (high * wide),
            "b heads n (rows columns) -> b heads n (rows high) (columns wide)",
            rows=cells.shape[-2],
            high=high,
            wide=wide,
        )
        beyond = (0, width - weights.shape[-1], 0, height - weights.shape[-2])
        return rearrange(F.pad(weights, beyond), "b heads n i j -> b heads n (i j)")

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' Attention to ours."""
        names = {"q": "query", "kv": "key_value", "proj": "project", "sr": "reduce", "norm": "norm"}
        return rename(state, names)


def reduction(name: str, *, dim: int, ratio: int) -> nn.Module:
    """What makes every cell of `ratio` x `ratio` positions one position."""
    if name == "average":
        return nn.AvgPool2d(ratio)
    groups = dim if name == "depthwise" else 1
    return nn.Conv2d(dim, dim, ratio, stride=ratio, groups=groups)
