"""Anchored stripe attention mixed with window attention: half of the channels each.

Paper: "Efficient and Explicit Modelling of Image Hierarchies for Image Restoration", Li, Fan,
Xiang, Demandolx, Ranjan, Timofte, Van Gool, CVPR 2023, arXiv 2303.00748 (GRL).

    y = W_O [window(Q_1, K_1, V_1), stripe(Q_2, K_2, V_2, R)],    R = W_R pool(x)
    window = A(Q, K) V,    stripe = A'(Q, R) (A(R, K) V)          A: see `stripe_window`

Stripes are horizontal or vertical, `shift` moves them by half of one. Any height and width will
do: each half is padded to whole tiles of its own, and padding is never attended to. A tile larger
than the map is the map, and is not shifted.

Differs from the authors' code: tables, indices and masks follow from the map, so that vertical
stripes counted in groups also run on maps that are not square; odd maps are pooled by cells that
end at the border. Anchors come in one stage, separable convolutions with their GELU; without
anchors (df = 1) there is no stripe attention. No dropout.

Cross form: queries and anchors come from `x`, keys and values from the context, which should show
the same place. A context of another height or width is resized (bilinear).

Cost: 4 n c^2 + n c^2 / (2 df^2) + n c w^2 + 2 n c s / df^2 multiply-adds, for n tokens, c channels,
windows of w^2 tokens, stripes of s tokens, anchors (pooled) at 1/df; and 512 (heads + 2) for each
relative position in a tile, however many tiles there are.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import (
    Mechanism,
    QkvBias,
    align,
    check_heads,
    rename,
    reshape,
)
from catnet.model.attention.stripe_window import (
    AnchoredStripeAttention,
    WindowAttention,
    check_choice,
    core_names,
)
from catnet.types import Context, Features

ANCHORS = ("avgpool", "maxpool", "conv2d", "separable_conv", "patchmerging")
ORIENTATIONS = ("horizontal", "vertical")
PROJECTIONS = ("linear", "separable_conv")
OUTPUTS = ("linear", "conv2d")

NAMES = {
    "qkv.body": "project_in",
    "qkv.body.0": "local.0",
    "qkv.body.1": "project_in",
    "qkv.body.2": "project_in",
    "anchor.body.0": "anchor.body",
    "anchor.body.0.0": "anchor.body.0",
    "anchor.body.0.1": "anchor.body.2",
    "anchor.body.0.2": "anchor.body.2",
    "anchor.body.0.reduction": "anchor.body.1",
    "proj": "project",
    **core_names("window_attn.attn_transform", "window.attend"),
    **core_names("stripe_attn.attn_transform1", "stripe.gather"),
    **core_names("stripe_attn.attn_transform2", "stripe.distribute"),
}


class StripeAttention(Mechanism):
    """GRL's mixed attention; `stripe` and `groups` say how large or how many stripes are.

    `stripe=(8, None), groups=(None, 4)` (GRL-base): stripes of 8 rows, four to the width;
    `orientation="vertical"` exchanges rows and columns of both. An entry of `stripe` must be a
    multiple of `anchor_down`. A network alternates `orientation` and the two shifts. `anchor`,
    `projection`, `output` and `distance` are names from ANCHORS, PROJECTIONS, OUTPUTS, DISTANCES.
    """

    aligned: ClassVar[bool] = True
    paper: ClassVar[str] = "GRL, arXiv 2303.00748"
    good_for: ClassVar[str] = (
        "windows, and long stripes by way of anchors: for structures that run across the map"
    )
    published: ClassVar[dict[str, str]] = {
        r"qkv\.body(\.[12])?\.weight": "3*c c",
        r"window_attn\.attn_transform\.logit_scale": "w 1 1",
        r"stripe_attn\.attn_transform[12]\.logit_scale": "s 1 1",
        "proj.weight": "c c",
        "proj.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        window_heads: Annotated[int, Field(description="heads of the windows' half")] = 4,
        stripe_heads: Annotated[int, Field(description="heads of the stripes' half")] = 4,
        window: Annotated[int, Field(description="side of a window; at most the map is one")] = 8,
        window_shift: Annotated[bool, Field(description="windows moved by half of one")] = False,
        stripe: Annotated[
            Sequence[int | None], Field(description="rows, columns of a stripe, or None")
        ] = (8, None),
        groups: Annotated[
            Sequence[int | None],
            Field(description="number of stripes there, or None"),
        ] = (None, 4),
        stripe_shift: Annotated[bool, Field(description="stripes moved by half of one")] = False,
        orientation: Annotated[str, Field(description="horizontal or vertical")] = "horizontal",
        anchor: Annotated[str, Field(description=" or ".join(ANCHORS))] = "avgpool",
        anchor_down: Annotated[int, Field(le=32, description="tokens to an anchor's side")] = 4,
        projection: Annotated[str, Field(description="linear or separable_conv")] = "linear",
        activation: Annotated[bool, Field(description="a GELU in separable convolutions")] = True,
        qkv_bias: QkvBias = True,
        distance: Annotated[str, Field(description="cosine or euclidean")] = "cosine",
        output: Annotated[str, Field(description="linear or conv2d")] = "linear",
    ) -> None:
        super().__init__()
        if dim % 2:
            raise UserError(f"stripe attention: dim={dim} must be even, to be halved")
        check_heads("stripe attention (window_heads)", dim=dim // 2, heads=window_heads)
        check_heads("stripe attention (stripe_heads)", dim=dim // 2, heads=stripe_heads)
        check_choice("orientation", orientation, ORIENTATIONS)
        check_choice("projection", projection, PROJECTIONS)
        check_choice("output", output, OUTPUTS)
        order = slice(None, None, -1 if orientation == "vertical" else 1)
        self.local = nn.Identity()
        if projection == "separable_conv":
            depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=qkv_bias)
            self.local = nn.Sequential(depthwise, nn.GELU() if activation else nn.Identity())
        self.query = nn.Conv2d(dim, dim, 1, bias=qkv_bias)
        self.key_value = nn.Conv2d(dim, 2 * dim, 1, bias=qkv_bias)
        self.anchor = AnchorProjection(dim, kind=anchor, down=anchor_down, activation=activation)
        self.window = WindowAttention(
            window_heads, window=window, shift=window_shift, distance=distance
        )
        self.stripe = AnchoredStripeAttention(
            stripe_heads,
            stripe=stripe[order],
            groups=groups[order],
            shift=stripe_shift,
            down=anchor_down,
            distance=distance,
        )
        width = 1 if output == "linear" else 3
        self.project = nn.Conv2d(dim, dim, width, padding=width // 2)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Attend from `x` to `context` (default: `x` itself) in windows and in stripes."""
        context = align(context, like=x)
        query, key, value = self.project_in(x, context)
        window = self.window(query[0], key=key[0], value=value[0])
        stripe = self.stripe(query[1], key=key[1], value=value[1], anchor=self.anchor(x))
        return self.project(torch.cat((window, stripe), dim=1))

    def project_in(
        self, x: Features, context: Features
    ) -> tuple[Float[Tensor, "2 b e h w"], Float[Tensor, "2 b e h w"], Float[Tensor, "2 b e h w"]]:
        """Queries of `x`, keys and values of `context`; each for the window and for the stripe."""
        split = "b (part half e) h w -> part half b e h w"
        (query,) = rearrange(self.query(self.local(x)), split, part=1, half=2)
        key, value = rearrange(self.key_value(self.local(context)), split, part=2, half=2)
        return query, key, value

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b heads n n"]:
        """Dense weights on the (resized) context: window heads, then stripe heads; rows sum to 1.

        A stripe's weights are the product of its two steps.
        """
        context = align(context, like=x)
        query, key, _ = self.project_in(x, context)
        height, width = x.shape[-2:]
        each = torch.eye(height * width, dtype=query.dtype, device=x.device)
        each = rearrange(each, "m (h w) -> m h w", h=height)
        window, stripe = (
            repeat(each, "m h w -> b (heads m) h w", b=len(x), heads=half.heads)
            for half in (self.window, self.stripe)
        )
        window = self.window(query[0], key=key[0], value=window)
        stripe = self.stripe(query[1], key=key[1], value=stripe, anchor=self.anchor(x))
        return rearrange(
            torch.cat((window, stripe), dim=1),
            "b (heads m) h w -> b heads (h w) m",
            m=height * width,
        )

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' MixedAttention to ours."""
        merging = "anchor.body.0.reduction"
        weight = state.get(f"{merging}.weight")
        if weight is not None and f"{merging}.bias" not in state:
            cells = reshape(
                f"{merging}.weight", weight, "o (column row c) -> o c row column", row=2, column=2
            )
            state = {n: t for n, t in state.items() if not n.startswith(merging)}
            state["anchor.body.0.weight"] = cells
        ours = rename(state, NAMES)
        for kind in ("weight", "bias"):
            if f"project_in.{kind}" in ours:
                joint = ours.pop(f"project_in.{kind}")
                split = "(half part e) ... -> part half e ..."
                parts = reshape(f"qkv {kind}", joint, split, half=2, part=3)
                ours[f"query.{kind}"] = rearrange(parts[0], "half e ... -> (half e) ...")
                ours[f"key_value.{kind}"] = rearrange(parts[1:], "p half e ... -> (p half e) ...")
        return {name: as_convolution(name, tensor) for name, tensor in ours.items()}


class AnchorProjection(nn.Module):
    """Half the channels at one anchor per cell of `down` x `down` positions, rounded up."""

    def __init__(self, dim: int, *, kind: str, down: int, activation: bool = True) -> None:
        super().__init__()
        check_choice("anchor", kind, ANCHORS)
        if "conv" in kind and down % 2:
            raise UserError(f"stripe attention: anchor={kind!r} needs an even anchor_down")
        if kind == "patchmerging" and down != 2:
            raise UserError(f"stripe attention: anchor={kind!r} needs anchor_down=2, not {down}")
        self.multiple = 2 if kind == "patchmerging" else 1
        self.body = anchor_layers(dim, kind=kind, down=down, activation=activation)

    def forward(self, x: Features) -> Float[Tensor, "b e i j"]:
        """The anchors of a map; what lies beyond the border counts as zero, in pools as nothing."""
        height, width = x.shape[-2:]
        return self.body(F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple)))


def anchor_layers(dim: int, *, kind: str, down: int, activation: bool) -> nn.Module:
    """The layers of one kind of anchor projection, from `dim` to half as many channels."""
    around = {"kernel_size": down + 1, "stride": down, "padding": down // 2}
    if kind == "conv2d":
        return nn.Conv2d(dim, dim // 2, **around)
    if kind == "patchmerging":
        return nn.Conv2d(dim, dim // 2, 2, stride=2, bias=False)
    pointwise = nn.Conv2d(dim, dim // 2, 1)
    if kind == "separable_conv":
        between = nn.GELU() if activation else nn.Identity()
        return nn.Sequential(nn.Conv2d(dim, dim, groups=dim, **around), between, pointwise)
    pool = nn.AvgPool2d if kind == "avgpool" else nn.MaxPool2d
    return nn.Sequential(pool(down, ceil_mode=True), pointwise)


def as_convolution(name: str, tensor: Tensor) -> Tensor:
    """The weight of a linear layer on maps as that of a 1x1 convolution; the rest as it is."""
    if tensor.dim() == 2 and ".bias." not in name:
        return rearrange(tensor, "o i -> o i 1 1")
    return tensor
