"""The patient, apart from table and air: what a CT is cropped around."""

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from scipy import ndimage

from catnet.data.volume import Array, Grid

COARSE = 4.0  # mm; the body is found on a coarse grid, which also makes it fast
OPENING = 2  # voxels; half as thick as a bridge that is cut
INNER = slice(OPENING, -OPENING)


def coarse_grid(grid: Grid) -> tuple[tuple[slice, ...], Grid]:
    """Every n-th voxel along each axis so that voxels are about `COARSE` mm, and their grid."""
    steps = [max(1, round(COARSE / mm)) for mm in grid.spacing]
    shape = tuple(-(-n // step) for n, step in zip(grid.shape, steps, strict=True))
    affine = grid.affine @ np.diag([*steps, 1.0])
    return tuple(slice(None, None, step) for step in steps), Grid(shape, affine)


def find_body(voxels: Array, *, threshold: float) -> Bool[ndarray, "x y z"]:
    """The largest connected body above `threshold`, its holes filled slice by slice.

    An opening cuts the thin bridge between a patient and the table. Everything is body where
    nothing is above the threshold.
    """
    above = voxels > threshold
    padded = np.pad(above, OPENING, mode="edge")  # else a thin volume is opened away
    opened = ndimage.binary_opening(padded, iterations=OPENING)[(INNER,) * 3]
    parts, count = ndimage.label(opened)
    if count == 0:
        return np.ones_like(above)
    sizes = np.bincount(parts.ravel())
    largest = parts == (1 + np.argmax(sizes[1:]))
    grown = ndimage.binary_dilation(largest, iterations=OPENING) & above
    filled = [ndimage.binary_fill_holes(grown[..., z]) for z in range(grown.shape[2])]
    return np.stack(filled, axis=-1)
