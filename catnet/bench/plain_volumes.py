"""Plain reference: supervoxels and preparing, written straight down.

Supervoxels: the algorithm of Felzenszwalb and Huttenlocher, IJCV 2004, in three dimensions, on
unrounded grey levels: weights are floats, sorted by `argsort` in whatever order it leaves ties.
Preparing: `get_fdata` in double precision, cubic `zoom`, crop or pad, z-score.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from einops import parse_shape, rearrange
from jaxtyping import Bool, Float, Integer
from numpy import ndarray
from scipy import ndimage

from catnet.data.card import Card
from catnet.data.supervoxels import body_mask, compiled, to_grey

Volume = Float[ndarray, "d h w"]
Labels = Integer[ndarray, "d h w"]


def plain_supervoxels(volume: Volume, *, min_size: int, scale: float = 1.0) -> Labels:
    """Segments of even grey, 1..n, 0 outside of the body and for small islands in it."""
    level = volume.astype(np.float64)
    level = 255 * (level - level.min()) / (level.max() - level.min())
    body = body_mask(to_grey(volume))  # what is cut is the same on both sides
    node = rearrange(np.arange(volume.size), "(d h w) -> d h w", **parse_shape(volume, "d h w"))
    first, second = [], []
    for axis in range(3):
        before = [slice(None)] * 3
        after = [slice(None)] * 3
        before[axis], after[axis] = slice(None, -1), slice(1, None)
        both = body[tuple(before)] & body[tuple(after)]
        first.append(node[tuple(before)][both])
        second.append(node[tuple(after)][both])
    edges = np.stack([np.concatenate(first), np.concatenate(second)], axis=1)
    level = level.ravel()
    weights = np.abs(level[edges[:, 0]] - level[edges[:, 1]])
    order = np.argsort(weights)
    root = plain_joined(weights[order], edges[order], volume.size, scale, min_size)
    root = rearrange(root, "(d h w) -> d h w", **parse_shape(volume, "d h w"))
    return plain_numbered(root, body, min_size=min_size)


@compiled
def plain_root(parent: ndarray, node: int) -> int:
    """The node that stands for a segment; shortens the path."""
    top = node
    while parent[top] != top:
        top = parent[top]
    while parent[node] != top:
        parent[node], node = top, parent[node]
    return top


@compiled
def plain_joined(
    weights: ndarray, edges: ndarray, count: int, scale: float, min_size: int
) -> ndarray:
    """Both passes of the paper over sorted edges; the root of every node."""
    parent = np.arange(count)
    size = np.ones(count, dtype=np.int64)
    heaviest = np.zeros(count, dtype=np.float64)
    for number in range(len(weights)):
        one, other = plain_root(parent, edges[number, 0]), plain_root(parent, edges[number, 1])
        if one == other:
            continue
        bound = min(heaviest[one] + scale / size[one], heaviest[other] + scale / size[other])
        if weights[number] <= bound:
            parent[other] = one
            size[one] += size[other]
            heaviest[one] = weights[number]
    for number in range(len(weights)):
        one, other = plain_root(parent, edges[number, 0]), plain_root(parent, edges[number, 1])
        if one != other and (size[one] < min_size or size[other] < min_size):
            parent[other] = one
            size[one] += size[other]
    for node in range(count):
        parent[node] = plain_root(parent, node)
    return parent


def plain_numbered(root: Labels, body: Bool[ndarray, "d h w"], *, min_size: int) -> Labels:
    """Roots as labels 1..n, where they are large enough and inside."""
    _, where, sizes = np.unique(root[body], return_inverse=True, return_counts=True)
    number = np.where(sizes >= min_size, np.cumsum(sizes >= min_size), 0)
    labels = np.zeros(root.shape, dtype=np.int64)
    labels[body] = number[where]
    return labels


def plain_prepared(card: Card, image: Path, label: Path) -> tuple[Volume, Labels]:
    """A case as the card says, slices first; cases with a body to crop around are not for it."""
    scan, truth = (turned(nib.load(path), card.orientation) for path in (image, label))
    voxels, labels = scan.get_fdata(), truth.get_fdata()
    low, high = np.percentile(voxels, card.clip.percentiles)
    own = scan.header.get_zooms()[:3]
    wanted = [mm if mm is not None else here for mm, here in zip(card.spacing, own, strict=True)]
    factors = [here / mm for here, mm in zip(own, wanted, strict=True)]
    voxels = np.clip(ndimage.zoom(voxels, factors, order=3), low, high)
    labels = ndimage.zoom(labels, factors, order=0)
    voxels = fitted(voxels, size=card.size, fill=low)
    labels = fitted(labels, size=card.size, fill=0.0)
    voxels = (voxels - voxels.mean()) / voxels.std()
    voxels, labels = (rearrange(array, "x y z -> z y x") for array in (voxels, labels))
    return voxels, labels.astype(np.int64)


def turned(scan: nib.Nifti1Image, orientation: str) -> nib.Nifti1Image:
    """A scan whose axes run as the card says."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(scan.affine), nib.orientations.axcodes2ornt(orientation)
    )
    return scan.as_reoriented(turn)


def fitted(
    voxels: Float[ndarray, "x y z"], *, size: tuple[int, int], fill: float
) -> Float[ndarray, "i j z"]:
    """Cropped or padded around the middle of the first two axes."""
    for axis, wanted in enumerate(size):
        missing = max(0, wanted - voxels.shape[axis])
        widths = [(0, 0)] * 3
        widths[axis] = (missing // 2, missing - missing // 2)
        voxels = np.pad(voxels, widths, constant_values=fill)
        start = (voxels.shape[axis] - wanted) // 2
        voxels = np.take(voxels, range(start, start + wanted), axis=axis)
    return voxels
