"""The two attentions that GRL mixes: in windows, and in stripes by way of anchors.

Paper: "Efficient and Explicit Modelling of Image Hierarchies for Image Restoration", Li et al.,
CVPR 2023, arXiv 2303.00748.

    A(Q, K) = softmax(e^t cos(Q, K) + 16 sigmoid(MLP(position)) + penalty),    e^t <= 100
    window  = A(Q, K) V
    stripe  = A'(Q, R) (A(R, K) V),    R: anchors, the map at 1/df of its rows and columns

The authors' ablation `distance="euclidean"` has e^t |Q - K| for the cosine: far keys weigh more.
Both take maps of any height and width (see `stripe_geometry`). Where `stripe // 2` is no multiple
of df, anchors are rolled by less than a whole anchor too little, as the authors' code has it.
"""

import math
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import rename
from catnet.model.attention.stripe_geometry import (
    Grid,
    Pair,
    Tiling,
    anchor_grid,
    cut,
    join,
    penalty,
    regions,
    relative_positions,
    round_up,
)
from catnet.types import Features

DISTANCES = ("cosine", "euclidean")
Values = Float[Tensor, "b e h w"]  # values may have channels of their own
Tokens = Float[Tensor, "b tiles heads n d"]


class CosineAttention(nn.Module):
    """Attention between the tokens of each tile, biased by their relative position."""

    def __init__(self, heads: int, *, distance: str) -> None:
        super().__init__()
        check_choice("distance", distance, DISTANCES)
        self.distance = distance
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.bias = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))

    def forward(
        self,
        query: Tokens,
        *,
        key: Float[Tensor, "b tiles heads m d"],
        value: Float[Tensor, "b tiles heads m e"],
        grids: tuple[Grid, Grid],
        penalty: Float[Tensor, "tiles 1 n m"],
    ) -> Float[Tensor, "b tiles heads n e"]:
        """Attend within tiles; `grids` are where the queries and the keys of a tile lie."""
        scale = self.logit_scale.clamp(max=math.log(100)).exp()
        bias = self.position_bias(grids) + penalty
        if self.distance == "euclidean":
            apart = torch.cdist(query, key, compute_mode="donot_use_mm_for_euclid_dist")
            return (apart * scale + bias).softmax(dim=-1).to(value.dtype) @ value
        query, key = unit(query) * scale, unit(key)
        tiles = query.shape[1]
        query, key, value = (
            rearrange(part, "b tiles heads n d -> b (tiles heads) n d")
            for part in (query, key, value)
        )
        bias = rearrange(bias, "tiles heads n m -> 1 (tiles heads) n m").to(query.dtype)
        attended = F.scaled_dot_product_attention(
            query, key, value.to(query.dtype), attn_mask=bias, scale=1.0
        )
        return rearrange(attended, "b (tiles heads) n d -> b tiles heads n d", tiles=tiles)

    def position_bias(self, grids: tuple[Grid, Grid]) -> Float[Tensor, "heads n m"]:
        """16 sigmoid of an MLP of the relative position, per head."""
        table, index = relative_positions(*grids, like=self.logit_scale)
        bias = rearrange(self.bias(table), "i j heads -> heads (i j)")
        return 16 * bias[:, index].sigmoid()


def unit(tokens: Tokens) -> Tokens:
    """Every token at length one; zeros, which padding has, stay zeros in half precision too."""
    return F.normalize(tokens, dim=-1, eps=max(1e-12, torch.finfo(tokens.dtype).tiny))


def core_names(theirs: str, ours: str) -> dict[str, str]:
    """Layer names of the authors' `AffineTransform` and of `CosineAttention`, for `rename`."""
    layers = {"": "", ".cpb_mlp.0": ".bias.0", ".cpb_mlp.2": ".bias.2"}
    return {theirs + old: ours + new for old, new in layers.items()}


class WindowAttention(nn.Module):
    """Attention within square windows, which `shift` moves by half a window."""

    def __init__(self, heads: int, *, window: int, shift: bool, distance: str) -> None:
        super().__init__()
        if window < 1:
            raise UserError(f"stripe attention: window={window}, but a window has at least 1 token")
        self.heads = heads
        self.window, self.shifted = window, shift
        self.attend = CosineAttention(heads, distance=distance)

    def forward(self, query: Features, *, key: Features, value: Values) -> Values:
        """Attend from `query` to the `key` and `value` of the same window."""
        size = tuple(query.shape[-2:])
        tiling = self.tiling(size)
        query, key, value = (
            cut(part, heads=self.heads, tiling=tiling) for part in (query, key, value)
        )
        here = regions(size, tiling=tiling, device=query.device)
        grids = (tile_grid(tiling.tile), tile_grid(tiling.tile))
        attended = self.attend(
            query, key=key, value=value, grids=grids, penalty=penalty(here, here)
        )
        return join(attended, size=size, tiling=tiling)

    def tiling(self, size: Pair) -> Tiling:
        """The windows of a map of `size`; one that is larger than the map is the map."""
        rows, columns = (min(self.window, length) for length in size)
        half = self.window // 2 if self.shifted else 0
        up, left = (half if self.window <= length else 0 for length in size)
        return Tiling((rows, columns), (up, left))

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' WindowAttention to ours."""
        return rename(state, core_names("attn_transform", "attend"))


class AnchoredStripeAttention(nn.Module):
    """Attention within stripes in two steps: anchors gather from keys, queries from anchors.

    Each axis of a stripe has a size in tokens, a multiple of `down` (`stripe`), or a number of
    stripes (`groups`): on that axis the size is the map's share, rounded up to a multiple of
    `down`. The other of the two is None there.
    """

    def __init__(
        self,
        heads: int,
        *,
        stripe: Sequence[int | None],
        groups: Sequence[int | None],
        shift: bool,
        down: int,
        distance: str,
    ) -> None:
        super().__init__()
        check_stripe(stripe, groups=groups, down=down)
        self.heads = heads
        self.stripe = tuple(stripe)
        self.groups = tuple(groups)
        self.shifted = shift
        self.down = down
        self.gather = CosineAttention(heads, distance=distance)
        self.distribute = CosineAttention(heads, distance=distance)

    def forward(
        self, query: Features, *, key: Features, value: Values, anchor: Float[Tensor, "b c i j"]
    ) -> Values:
        """Attend within stripes; `anchor` has ceil(h / down) rows and ceil(w / down) columns."""
        size, small = tuple(query.shape[-2:]), tuple(anchor.shape[-2:])
        tiling = self.tiling(size)
        less = tiling.smaller(self.down)
        query, key, value = (
            cut(part, heads=self.heads, tiling=tiling) for part in (query, key, value)
        )
        anchor = cut(anchor, heads=self.heads, tiling=less)
        here = regions(size, tiling=tiling, device=query.device)
        there = regions(small, tiling=less, device=query.device)
        grid = tile_grid(tiling.tile)
        gathered = self.gather(
            anchor,
            key=key,
            value=value,
            grids=(anchor_grid(tiling.tile, down=self.down, up=True), grid),
            penalty=penalty(there, here),
        )
        attended = self.distribute(
            query,
            key=anchor,
            value=gathered,
            grids=(grid, anchor_grid(tiling.tile, down=self.down, up=False)),
            penalty=penalty(here, there),
        )
        return join(attended, size=size, tiling=tiling)

    def tiling(self, size: Pair) -> Tiling:
        """The stripes of a map of `size`."""
        tile, shift = [], []
        for length, side, count in zip(size, self.stripe, self.groups, strict=True):
            most = round_up(length, self.down)
            rows = min(side or round_up(-(-length // (count or 1)), self.down), most)
            whole = count == 1 or (side or 0) > most
            tile.append(rows)
            shift.append(rows // 2 if self.shifted and not whole else 0)
        return Tiling((tile[0], tile[1]), (shift[0], shift[1]))

    @staticmethod
    def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
        """From the names of the authors' AnchorStripeAttention to ours."""
        names = core_names("attn_transform1", "gather")
        return rename(state, names | core_names("attn_transform2", "distribute"))


def tile_grid(tile: Pair) -> Grid:
    """The rows and columns of a tile's own tokens."""
    return range(tile[0]), range(tile[1])


def check_stripe(stripe: Sequence[int | None], *, groups: Sequence[int | None], down: int) -> None:
    """Raise `UserError` unless each axis has one valid entry in `stripe` or in `groups`."""
    if down < 2:
        raise UserError(f"stripe attention: anchor_down={down} must be at least 2")
    if len(stripe) != 2 or len(groups) != 2:
        raise UserError("stripe attention: stripe and groups need two entries: rows, columns")
    for axis, side, count in zip(("rows", "columns"), stripe, groups, strict=True):
        if (side is None) == (count is None):
            raise UserError(
                f"stripe attention: for {axis} give either a size in stripe or a number in groups, "
                f"the other None, not {side} and {count}"
            )
        if side is not None and (side < 1 or side % down):
            raise UserError(
                f"stripe attention: stripe of {side} {axis} is no multiple of anchor_down={down}"
            )
        if count is not None and count < 1:
            raise UserError(f"stripe attention: groups of {axis} is {count}, but at least 1 is due")


def check_choice(option: str, value: str, known: tuple[str, ...]) -> None:
    """Raise `UserError` unless `value` is one of those known."""
    if value not in known:
        raise UserError(
            f"stripe attention: {option}={value!r} is unknown; take one of {', '.join(known)}"
        )
