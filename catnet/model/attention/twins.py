"""Spatially separable attention: a local step within windows, then a global step over cells.

Paper: "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", Chu, Tian, Wang,
Zhang, Ren, Wei, Xia, Shen, NeurIPS 2021, arXiv 2104.13840.

    y = x + LSA(norm(x)),    z = y + GSA(norm(y))

Differs from the authors' code: there a feed-forward follows each of the two steps. Here it is left
to the block that a mechanism stands in; `TwinsBlock` has it.

Cross form: `x` takes its local step among the context's windows and its global step among the
context's cells, after the context has taken a local step by itself: at the global step both have
come equally far, as when a map attends to itself. A context of another size is resized (bilinear)
for the local step only.

Cost: that of `twins_lsa` (twice with a context) and of `twins_gsa`.
"""

from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor

from catnet.errors import UserError
from catnet.model.attention.layers import (
    ChannelNorm,
    Heads,
    Mechanism,
    PreNormBlock,
    QkvBias,
    convert_block,
    seen,
)
from catnet.model.attention.twins_gsa import GlobalSubsampledAttention
from catnet.model.attention.twins_lsa import LocallyGroupedAttention
from catnet.types import Context, Features

EPS = 1e-6  # of the norms in front of both steps, in all published Twins models
PARTS = {"attention": "", "attention_norm": "_norm"}
FEED_FORWARD = ("feed_forward", "feed_forward_norm")


class SpatiallySeparableAttention(Mechanism):
    """LSA, then GSA, each behind a norm and each added to what came in; options as theirs."""

    aligned: ClassVar[bool] = True
    paper: ClassVar[str] = "Twins, arXiv 2104.13840"
    good_for: ClassVar[str] = "lsa for the detail, then gsa across the windows"
    published: ClassVar[dict[str, str]] = {
        r"0\.norm1\.(weight|bias)": "c",
        r"0\.attn\.qkv\.weight": "3*c c",
        r"0\.attn\.proj\.weight": "c c",
        r"0\.attn\.proj\.bias": "c",
        r"1\.norm1\.(weight|bias)": "c",
        r"1\.attn\.q\.weight": "c c",
        r"1\.attn\.kv\.weight": "2*c c",
        r"1\.attn\.proj\.weight": "c c",
        r"1\.attn\.proj\.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        heads: Heads = 8,
        window: Annotated[int, Field(description="side of lsa's window, in tokens")] = 7,
        ratio: Annotated[int, Field(le=1024, description="side of gsa's cell, in tokens")] = 4,
        reduce: Annotated[
            str, Field(description="a cell to a token: convolution, average or depthwise")
        ] = "convolution",
        qkv_bias: QkvBias = True,
    ) -> None:
        super().__init__()
        self.near_norm = ChannelNorm(dim, eps=EPS)
        self.near = LocallyGroupedAttention(dim, heads=heads, window=window, qkv_bias=qkv_bias)
        self.far_norm = ChannelNorm(dim, eps=EPS)
        self.far = GlobalSubsampledAttention(
            dim, heads=heads, ratio=ratio, reduce=reduce, qkv_bias=qkv_bias
        )

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend to `context` (default: `x` itself) nearby, then everywhere; the shape of `x`."""
        stepped = self.local_step(x, seen(x, context))
        context = stepped if context is None else self.local_step(context, context)
        return stepped + self.far(self.far_norm(stepped), self.far_norm(context))

    def local_step(self, x: Features, context: Context) -> Features:
        """The map after attention to the context's windows."""
        return x + self.near(self.near_norm(x), self.near_norm(context))

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From two consecutive blocks of the authors', named `0.*` and `1.*`.

        Their feed-forward (FEED_FORWARD) has no place here: CMAT has its own.
        """
        for name in state:
            if not name.startswith(("0.", "1.")):
                raise UserError(
                    f"{name} is unknown; two blocks are expected, 0.* that of lsa, 1.* that of gsa"
                )
        ours = {}
        for number, step in (("0.", "near"), ("1.", "far")):
            block = {n.removeprefix(number): t for n, t in state.items() if n.startswith(number)}
            try:
                converted = TwinsBlock.convert(block)
            except UserError as error:
                raise UserError(f"in block {number}* ({step}): {error}") from None
            for name, tensor in converted.items():
                part, _, rest = name.partition(".")
                if part not in FEED_FORWARD:
                    ours[f"{step}{PARTS[part]}.{rest}"] = tensor
        return ours


class TwinsBlock(PreNormBlock):
    """One block of a Twins-SVT stage around LSA (even places) or GSA (odd places)."""

    def __init__(
        self,
        dim: int,
        *,
        attention: LocallyGroupedAttention | GlobalSubsampledAttention,
        mlp_ratio: float = 4.0,
        eps: float = EPS,
    ) -> None:
        super().__init__(dim, attention=attention, mlp_ratio=mlp_ratio, eps=eps)

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' GroupBlock to ours."""
        grouped = "attn.qkv.weight" in state
        mechanism = LocallyGroupedAttention if grouped else GlobalSubsampledAttention
        return convert_block(state, mechanism.convert)
