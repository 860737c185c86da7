"""From the prepared grid back onto the scanner's, slab by slab, by interpolating probabilities.

A prepared grid has the axes of its scan in another order, direction and spacing, so that the way
back is linear interpolation along each axis by itself. With the prepared slices k and k + 1 around
a voxel at place t along one axis,

    p(t) = (1 - (t - k)) p_k + (t - k) p_{k+1}

Only a few slices are held at a time, whatever the size of the volume and the number of organs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Float, Float32, Integer
from numpy import ndarray

from catnet.data.volume import Grid

SLAB = 8  # slices of the scan that are interpolated at once
EDGE = 0.5 + 1e-3  # prepared voxels; how far the outermost one reaches


@dataclass(frozen=True)
class Piece:
    """Probabilities of one organ in some slices of the scan.

    organ        its place in the order of the stack's first axis
    slices       numbers along the scan's slice axis, ascending or descending
    probability  (k, rows, columns), the scan's other axes in the prepared order
    """

    organ: int
    slices: Integer[ndarray, " k"]
    probability: Float32[ndarray, "k h w"]


@dataclass(frozen=True)
class Way:
    """Where every voxel of the scan lies on the prepared grid.

    order   the scan's axes that run along the prepared slices, rows and columns
    places  for each of these, the prepared index of every voxel of the scan
    counts  prepared voxels along each
    """

    order: tuple[int, int, int]
    places: tuple[Float[ndarray, " _"], ...]
    counts: tuple[int, int, int]


def way_back(prepared: Grid, scan: Grid) -> Way:
    """How the voxels of `scan` lie on `prepared`, which was made from it by `standard_grid`."""
    matrix = np.linalg.inv(scan.affine) @ prepared.affine
    linear, offset = matrix[:3, :3], matrix[:3, 3]
    along = [int(np.argmax(np.abs(linear[:, axis]))) for axis in range(3)]
    scales = linear[along, range(3)]
    places = tuple(
        np.round((np.arange(scan.shape[own]) - offset[own]) / scale, 6)  # exact where grids agree
        for own, scale in zip(along, scales, strict=True)
    )
    backwards = (2, 1, 0)  # arrays are slices first, grids x first
    return Way(
        tuple(along[axis] for axis in backwards),
        tuple(places[axis] for axis in backwards),
        tuple(int(prepared.shape[axis]) for axis in backwards),
    )


def pull_back(way: Way, stacks: Iterable[Float32[ndarray, "o n h w"]]) -> Iterator[Piece]:
    """The probabilities of prepared slices, given in batches from the first, on the scan's slices.

    What lies outside of the prepared field of view in the plane is 0; along the slices, which are
    never cut, the outermost prepared one reaches to the end of the scan.
    """
    depth = way.counts[0]
    places = np.clip(way.places[0], 0, depth - 1)
    waiting = np.argsort(places, kind="stable")
    held, first = None, 0
    for stack in stacks:
        held = stack if held is None else np.concatenate([held[:, -1:], stack], axis=1)
        first = first if held is stack else first - 1
        last = first + held.shape[1] - 1
        ready = waiting[places[waiting] <= last]
        waiting = waiting[len(ready) :]
        for start in range(0, len(ready), SLAB):
            some = ready[start : start + SLAB]
            for organ, probability in enumerate(held):
                slab = interpolate(probability, places[some] - first)
                yield Piece(organ, some, in_plane(way, slab))
        first = last + 1


def in_plane(way: Way, slab: Float32[ndarray, "k h w"]) -> Float32[ndarray, "k i j"]:
    """The slab on the scan's rows and columns, 0 where the prepared slice does not reach."""
    for axis in (1, 2):
        places, count = way.places[axis], way.counts[axis]
        turned = rearrange(slab, "k h w -> h k w" if axis == 1 else "k h w -> w k h")
        found = interpolate(turned, np.clip(places, 0, count - 1))
        found[(places < -EDGE) | (places > count - 1 + EDGE)] = 0
        slab = rearrange(found, "h k w -> k h w" if axis == 1 else "w k h -> k h w")
    return slab


def interpolate(
    values: Float32[ndarray, "n h w"], places: Float[ndarray, " k"]
) -> Float32[ndarray, "k h w"]:
    """`values` at places along their first axis, 0 to n - 1."""
    below = np.clip(np.floor(places).astype(int), 0, max(len(values) - 2, 0))
    above = np.minimum(below + 1, len(values) - 1)
    share = rearrange((places - below).astype(np.float32), "k -> k 1 1")
    if not share.any():
        return values[below]
    low = values[below]
    return low + share * (values[above] - low)
