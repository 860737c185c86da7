"""Volumes for the page: small enough to be part of it, and where they belong in the world.

An image is stored in 16 bits where its values are whole numbers, else in 8 bits between two
percentiles; the file's slope and intercept give back its own units. Labels take 8 bits.
"""

import base64
import gzip
from collections.abc import Mapping
from dataclasses import dataclass

import nibabel as nib
import numpy as np
from jaxtyping import Integer, Real, UInt8
from numpy import ndarray
from scipy import ndimage

from catnet.arrays import Affine
from catnet.data.volume import ScanFile

MOST_VOXELS = 2**24  # of a volume on the page; larger ones are thinned out
RANGE = (0.1, 99.9)  # percentiles kept where 8 bits have to do
AIR = -500  # an image that goes below is taken for a CT in Hounsfield units
SOFT_TISSUE = (-160.0, 240.0)


@dataclass(frozen=True)
class Layer:
    """One label volume that may be laid over an image, its numbers those of the page's organs."""

    name: str
    volume: str


@dataclass(frozen=True)
class Image:
    """A packed image and the intensities that are black and white at first."""

    volume: str
    window: tuple[float, float]


def steps(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Every how many-th voxel along each axis is kept, the longest axis thinned out first."""
    found = [1, 1, 1]
    while np.prod([-(-n // step) for n, step in zip(shape, found, strict=True)]) > MOST_VOXELS:
        longest = max(range(3), key=lambda axis: shape[axis] / found[axis])
        found[longest] += 1
    return (found[0], found[1], found[2])


def thin(scan: ScanFile, every: tuple[int, int, int]) -> tuple[Real[ndarray, "x y z"], Affine]:
    """Voxels and affine of every n-th voxel along each axis; the first one stays in its place."""
    voxels = scan.voxels[tuple(slice(None, None, step) for step in every)]
    return voxels, scan.grid.affine @ np.diag([*every, 1.0])


def pack_image(scan: ScanFile) -> Image:
    """An image for the page, with a window that suits it."""
    voxels, affine = thin(scan, steps(scan.voxels.shape))
    low, high = (float(value) for value in np.percentile(voxels, (1, 99.5)))
    window = SOFT_TISSUE if voxels.min() < AIR else (low, max(high, low + 1e-6))
    bounds = np.iinfo(np.int16)
    whole = np.array_equal(voxels, np.rint(voxels))
    if whole and voxels.min() >= bounds.min and voxels.max() <= bounds.max:
        return Image(pack(voxels.astype(np.int16), affine), window)
    least, most = (float(value) for value in np.percentile(voxels, RANGE))
    slope = max((most - least) / 255, 1e-9)
    small = np.rint((voxels - least) / slope).clip(0, 255).astype(np.uint8)
    return Image(pack(small, affine, slope=slope, intercept=least), window)


def pack_labels(name: str, scan: ScanFile, *, numbers: Mapping[int, int]) -> Layer:
    """A layer for the page; `numbers` says which of the file's labels become which of its own."""
    voxels, affine = thin(scan, steps(scan.voxels.shape))
    return Layer(name, pack(renumber(voxels, numbers), affine))


def pack_contour(name: str, scan: ScanFile, *, numbers: Mapping[int, int]) -> Layer:
    """As `pack_labels`, the border of every organ alone, as seen in the plane of the slices."""
    voxels, affine = thin(scan, steps(scan.voxels.shape))
    labels = renumber(voxels, numbers)
    plane = np.ones((3, 3, 3), dtype=bool)
    through = int(np.argmax(nib.affines.voxel_sizes(affine)))
    plane[tuple(slice(0, None, 2) if axis == through else slice(None) for axis in range(3))] = False
    same = ndimage.minimum_filter(labels, footprint=plane) == ndimage.maximum_filter(
        labels, footprint=plane
    )
    return Layer(name, pack(np.where(same, 0, labels).astype(np.uint8), affine))


def renumber(voxels: Real[ndarray, "x y z"], numbers: Mapping[int, int]) -> UInt8[ndarray, "x y z"]:
    """The page's number of every voxel; 0 for labels that `numbers` does not have."""
    found = np.zeros(voxels.shape, dtype=np.uint8)
    for theirs, ours in numbers.items():
        found[voxels == theirs] = ours
    return found


def pack(
    voxels: Integer[ndarray, "x y z"],
    affine: Affine,
    *,
    slope: float = 1.0,
    intercept: float = 0.0,
) -> str:
    """A compressed NIfTI file in base64."""
    nifti = nib.Nifti1Image(voxels, affine)
    nifti.header.set_xyzt_units("mm")
    nifti.header.set_slope_inter(slope, intercept)
    data = nifti.to_bytes()
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode("ascii")
