"""The geometry of GRL: tiles of a rolled map, relative positions in a tile, and who may meet there.

Paper: "Efficient and Explicit Modelling of Image Hierarchies for Image Restoration", Li et al.,
CVPR 2023, arXiv 2303.00748; log-spaced positions after "Swin Transformer V2", Liu et al., CVPR
2022, arXiv 2111.09883.

    position(r) = sign(r) log2(1 + 8 |r| / r_max) / log2(8),    r = query row (column) - key row

A map that the tile does not divide is padded at the bottom and right. Tokens of padding are never
attended to; tokens that only the roll brought together are penalized as in the authors' code.

Differs from the authors' code: they take tables, indices and masks as inputs, built for one size;
here they follow from the map at hand. A tile of a single row has r_max = 0, where theirs divides
by zero; here every r is 0 then.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Integer
from torch import Tensor
from torch.nn import functional as F

from catnet.types import Features

Pair = tuple[int, int]  # rows, columns
Grid = tuple[range, range]  # the rows and the columns that the tokens of one tile lie in

# Not minus infinity: at the largest logit scale (100) the authors' outputs depend on the number.
APART = -100.0
# Finite, so that a row without any valid key stays finite; within the range of half precision.
PADDING = -6e4
OUTSIDE = -1


def round_up(length: int, multiple: int) -> int:
    """The smallest multiple that is not below `length`."""
    return -(-length // multiple) * multiple


class Tiling(NamedTuple):
    """Tiles of a map, and how far the map is rolled up and to the left before it is cut."""

    tile: Pair
    shift: Pair

    def smaller(self, down: int) -> "Tiling":
        """The same tiles on a map of 1/down as many rows and columns."""
        tile, shift = ((rows // down, columns // down) for rows, columns in self)
        return Tiling(tile, shift)


def cut(x: Features, *, heads: int, tiling: Tiling) -> Float[Tensor, "b tiles heads n d"]:
    """Pad to whole tiles, roll, and list the tokens of every tile by head."""
    (rows, columns), (up, left) = tiling
    height, width = x.shape[-2:]
    return rearrange(
        F.pad(x, (0, -width % columns, 0, -height % rows)).roll((-up, -left), dims=(-2, -1)),
        "b (heads d) (i row) (j column) -> b (i j) heads (row column) d",
        heads=heads,
        row=rows,
        column=columns,
    )


def join(tokens: Float[Tensor, "b tiles heads n d"], *, size: Pair, tiling: Tiling) -> Features:
    """The inverse of `cut`: a map of `size`, padding dropped."""
    (rows, columns), shift = tiling
    x = rearrange(
        tokens,
        "b (i j) heads (row column) d -> b (heads d) (i row) (j column)",
        j=round_up(size[1], columns) // columns,
        row=rows,
    )
    return x.roll(shift, dims=(-2, -1))[..., : size[0], : size[1]]


def anchor_grid(tile: Pair, *, down: int, up: bool) -> Grid:
    """The rows and columns of a tile's anchors: neighbors at its center, one unit apart.

    The authors round an odd margin down where anchors are keys, and `up` where they are queries.
    """
    sides = [side // down for side in tile]
    starts = [(side - inner + up) // 2 for side, inner in zip(tile, sides, strict=True)]
    rows, columns = (range(start, start + n) for start, n in zip(starts, sides, strict=True))
    return rows, columns


def relative_positions(
    query: Grid, key: Grid, *, like: Tensor
) -> tuple[Float[Tensor, "rows columns 2"], Integer[Tensor, "n m"]]:
    """Every relative position that occurs, and which of them (flat index) each pair has.

    The device and the precision are those of `like`.
    """
    rows, row_index = axis_positions(query[0], key[0], like=like)
    columns, column_index = axis_positions(query[1], key[1], like=like)
    table = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    index = rearrange(row_index, "i k -> i 1 k 1") * len(columns) + rearrange(
        column_index, "j l -> 1 j 1 l"
    )
    return table, rearrange(index, "i j k l -> (i j) (k l)")


def axis_positions(query: range, key: range, *, like: Tensor) -> tuple[Tensor, Tensor]:
    """`relative_positions` of one axis: from the least difference to the greatest."""
    least, greatest = query[0] - key[-1], query[-1] - key[0]
    differences = torch.arange(least, greatest + 1, dtype=like.dtype, device=like.device)
    differences = differences * (8 / max(greatest, 1))
    spaced = differences.sign() * torch.log2(1 + differences.abs()) / 3
    queries = torch.arange(query[0], query[-1] + 1, device=like.device)
    keys = torch.arange(key[0], key[-1] + 1, device=like.device)
    return spaced, rearrange(queries, "n -> n 1") - rearrange(keys, "m -> 1 m") - least


def regions(size: Pair, *, tiling: Tiling, device: torch.device) -> Integer[Tensor, "tiles n"]:
    """Which side of the map every token comes from after the roll; `OUTSIDE` for padding."""
    wrapped, inside = [], []
    for length, side, step in zip(size, *tiling, strict=True):
        padded = round_up(length, side)
        place = torch.arange(padded, device=device)
        wrapped.append((place >= padded - step).long())
        inside.append((place + step) % padded < length)
    region = 2 * rearrange(wrapped[0], "h -> h 1") + rearrange(wrapped[1], "w -> 1 w")
    valid = rearrange(inside[0], "h -> h 1") & rearrange(inside[1], "w -> 1 w")
    return rearrange(
        region.masked_fill(~valid, OUTSIDE),
        "(i row) (j column) -> (i j) (row column)",
        row=tiling.tile[0],
        column=tiling.tile[1],
    )


def penalty(
    query: Integer[Tensor, "tiles n"], key: Integer[Tensor, "tiles m"]
) -> Float[Tensor, "tiles 1 n m"]:
    """What the logits lose where regions differ or the key is padding; takes two `regions`."""
    query, key = rearrange(query, "tiles n -> tiles 1 n 1"), rearrange(key, "t m -> t 1 1 m")
    apart = (query != key) * APART
    return apart.masked_fill(key == OUTSIDE, PADDING)
