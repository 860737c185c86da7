"""Interpolation where two grids differ by a scaling and a shift along each axis, plane by plane.

What `scipy.ndimage.affine_transform(..., mode="grid-constant")` gives for a diagonal matrix, with
its sums in its order, so that the results are the same; but a plane is weighed once for the axes
within it, and never again for every plane that it takes part in. With the place t of an output
voxel along one axis, and the source's voxels v outside of which everything is `fill`,

    nearest  v[floor(t + 1/2)]          linear  (1 - x) v[floor(t)] + x v[floor(t) + 1]
                                                 x = t - floor(t)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray

Volume = Shaped[ndarray, "x y z"]
Moved = Shaped[ndarray, "i j k"]  # on another grid
Plane = Shaped[ndarray, "y x"]  # of the source


@dataclass(frozen=True)
class Axis:
    """For every output index along an axis the source's index below, and the two weights there.

    Indices count from one voxel before the source, where `fill` stands, as one after it.
    """

    below: Int64[ndarray, " n"]
    above: Int64[ndarray, " n"]
    weights: tuple[Float64[ndarray, " n"], Float64[ndarray, " n"]]


def axis_of(count: int, *, held: int, scale: float, offset: float, order: int) -> Axis:
    """Where `count` output voxels lie among `held` source voxels."""
    places = (np.arange(count) + offset / scale) * scale
    below = np.floor(places if order else places + 0.5)
    first = 1 - (places - below)
    start = below.astype(np.int64)
    low, high = (np.clip(start + step, -1, held) + 1 for step in (0, 1))
    return Axis(low, high, (first, 1 - first))


def zoom(
    voxels: Volume,
    *,
    scale: Float64[ndarray, "3"],
    offset: Float64[ndarray, "3"],
    shape: tuple[int, int, int],
    order: int,
    fill: float,
    kind: type | np.dtype,
) -> Moved:
    """`voxels` at `scale * index + offset`, of type `kind`, x fastest; `order` is 0 or 1."""
    along = [
        axis_of(count, held=held, scale=float(step), offset=float(start), order=order)
        for count, held, step, start in zip(shape, voxels.shape, scale, offset, strict=True)
    ]
    found = np.empty(shape, dtype=kind, order="F")
    if order == 0:
        padded = padded_planes(voxels, fill=fill, kind=voxels.dtype)
        x, y, z = along
        for number, place in enumerate(z.below):
            found[..., number] = padded(int(place))[y.below][:, x.below].T
        return found
    return linear(found, along, padded_planes(voxels, fill=fill, kind=np.float64))


def padded_planes(voxels: Volume, *, fill: float, kind: type | np.dtype) -> Callable[[int], Plane]:
    """Gives the source's planes by number, from the one before the first; `fill` around each."""
    width, height, depth = voxels.shape
    around = np.full((height + 2, width + 2), fill, dtype=kind)
    outside = around.copy()

    def plane(number: int) -> Plane:
        if not 1 <= number <= depth:
            return outside
        around[1:-1, 1:-1] = voxels[..., number - 1].T
        return around

    return plane


def linear(found: Moved, along: Sequence[Axis], plane: Callable[[int], Plane]) -> Moved:
    """Fill `found`: the eight neighbors of a voxel, summed in double precision."""
    x, y, z = along

    @lru_cache(maxsize=2)
    def weighed(number: int) -> list[Float64[ndarray, "j i"]]:
        """The four neighbors within a plane, weighed."""
        source = plane(number)
        rows = [source[y.below], source[y.above]]
        return [
            rows[b][:, column] * x.weights[a] * y.weights[b][:, np.newaxis]
            for a, column in enumerate((x.below, x.above))
            for b in (0, 1)
        ]

    for number in range(found.shape[2]):
        sides = [(z.below[number], z.weights[0][number]), (z.above[number], z.weights[1][number])]
        planes = [(weighed(int(place)), weight) for place, weight in sides if weight]
        total = np.zeros(found.shape[1::-1])
        for corner in range(4):
            for parts, weight in planes:
                total += parts[corner] if weight == 1 else parts[corner] * weight
        found[..., number] = total.T
    return found
