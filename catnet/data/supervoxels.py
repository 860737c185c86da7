"""Supervoxels: pseudo-labels that follow grey edges, and how near they come to the organs.

Paper: "Efficient Graph-Based Image Segmentation", Felzenszwalb and Huttenlocher, IJCV 59, 2004;
in three dimensions as in "Anomaly Detection-Inspired Few-Shot Medical Image Segmentation Through
Self-Supervision With Supervoxels", Hansen et al., Medical Image Analysis 78, 2022 (ADNet).

Voxels are nodes, an edge joins two neighbors a and b, its weight is |grey a - grey b|. From the
lightest edge to the heaviest, its two segments A and B are joined where

    weight <= min(heaviest(A) + scale / |A|, heaviest(B) + scale / |B|),

where heaviest(A) is the heaviest edge that joined A. A second pass in the same order joins what
the first kept apart wherever one side has fewer than `min_size` voxels.

Grey levels are 256 whole numbers, so most edges tie. Ties keep the order of axis (d, h, w), then
of voxel; no sum of floats is taken: one volume gives the same labels, bit for bit, on any machine.
Another order of ties would give other segments of one volume, but no purer ones of many.
"""

from collections.abc import Callable, Mapping
from inspect import unwrap

import numpy as np
from einops import parse_shape, rearrange
from jaxtyping import Int32, UInt8
from numba import njit
from numpy import ndarray
from scipy import ndimage

from catnet.arrays import LabelVolume, MaskVolume, Volume
from catnet.errors import UserError

GreyVolume = UInt8[ndarray, "d h w"]
Weights = UInt8[ndarray, " edges"]
Nodes = Int32[ndarray, " edges"]

AIR = 10
NUDGE = 2.0**-14
EVERY_NEIGHBOR = np.ones((3, 3), dtype=bool)


def supervoxels(volume: Volume, *, min_size: int, scale: float = 1.0) -> LabelVolume:
    """Cut a volume into segments of even grey, each of at least `min_size` voxels.

    Gain (above 0) and offset of `volume` do not matter: z-scored or raw, same labels. `scale`,
    in grey levels times voxels, is the paper's k. Returns int32 labels 1..n in the order of their
    first voxel. Label 0 is no candidate: the air, see `body_mask`, and islands of the body with
    fewer than `min_size` voxels. Raises UserError for NaN or infinity, and where no island is
    large enough.

    Neighbors share a face, and thick slices are joined as pixels are. Over the 20 cases of CHAOS
    T2, `min_size` 5000, the mean purity in percent is liver 73.5, right kidney 88.3, left kidney
    83.9, spleen 86.1 (`catnet supervoxels chaos_t2 --purity`). Smoothing, 18 or 26 neighbors,
    heavier edges between slices, four times the grey levels: each moved the mean of the four by
    less than two standard errors.
    """
    grey = to_grey(volume)
    body = body_mask(grey)
    labels = segment(grey, body, min_size=min_size, scale=scale)
    if not labels.any():
        raise UserError(
            f"supervoxels: min_size={min_size} is more than any connected part of this volume's "
            f"body ({np.count_nonzero(body)} voxels in all); choose a smaller min_size"
        )
    return labels


def purity(
    labels: LabelVolume, organs: LabelVolume, numbers: Mapping[str, int]
) -> dict[str, float]:
    """For every organ the largest Dice (0 to 1) that any single supervoxel reaches with it.

    `organs` holds the expert's labels, `numbers` names them. An absent organ is left out.
    """
    rows, columns = int(labels.max()) + 1, max([int(organs.max()), *numbers.values()]) + 1
    pairs = rearrange(labels.astype(np.int64) * columns + organs, "d h w -> (d h w)")
    joint = np.bincount(pairs, minlength=rows * columns)
    joint = rearrange(joint, "(segment organ) -> segment organ", organ=columns)
    voxels = joint.sum(axis=1, keepdims=True) + joint.sum(axis=0, keepdims=True)
    dice = 2 * joint / np.maximum(voxels, 1)
    best = dice[1:].max(axis=0, initial=0.0)
    present = joint.any(axis=0)
    return {name: float(best[number]) for name, number in numbers.items() if present[number]}


def to_grey(volume: Volume) -> GreyVolume:
    """Scale linearly to the whole numbers 0..255; a constant volume becomes zero.

    Scans hold whole numbers, so many voxels lie exactly halfway between two levels, where the
    rounding error of a z-score would decide: the nudge moves the borders off these halves.
    """
    if not np.isfinite(volume).all():
        raise UserError(
            "supervoxels: the volume holds NaN or infinity; mend the scan or prepare it again"
        )
    low, high = float(volume.min()), float(volume.max())
    gain = 255 / (high - low) if high > low else 0.0
    return np.floor((volume.astype(np.float64) - low) * gain + (0.5 - NUDGE)).astype(np.uint8)


def body_mask(grey: GreyVolume) -> MaskVolume:
    """Slice by slice the largest island brighter than air, its holes filled.

    A volume without contrast has no air: all of it is body.
    """
    if not grey.any():
        return np.ones(grey.shape, dtype=bool)
    return np.stack([largest_island(bright) for bright in grey > AIR])


def largest_island(bright: ndarray) -> ndarray:
    """The largest connected part of a slice, its holes filled; empty where nothing is bright."""
    islands, count = ndimage.label(bright, structure=EVERY_NEIGHBOR)
    if count == 0:
        return bright
    largest = 1 + np.argmax(np.bincount(islands.ravel())[1:])
    return ndimage.binary_fill_holes(islands == largest)


def segment(grey: GreyVolume, body: MaskVolume, *, min_size: int, scale: float) -> LabelVolume:
    """The paper's algorithm on the voxels of the body; int32 labels, 0 outside."""
    weights, first, second = sorted_edges(grey, body)
    parent = np.arange(grey.size, dtype=np.int32)
    size = np.ones(grey.size, dtype=np.int32)
    join_alike(parent, size, weights, first, second, float(scale))
    join_small(parent, size, first, second, min_size)
    labels = number_segments(parent, size, rearrange(body, "d h w -> (d h w)"), min_size)
    return rearrange(labels, "(d h w) -> d h w", **parse_shape(grey, "d h w"))


def sorted_edges(grey: GreyVolume, body: MaskVolume) -> tuple[Weights, Nodes, Nodes]:
    """Weight and both ends of every edge of the body, lightest first, ties in the fixed order."""
    edges = [axis_edges(grey, body, axis=axis) for axis in range(3)]
    weights, first, second = (np.concatenate(part) for part in zip(*edges, strict=True))
    order = np.argsort(weights, kind="stable")  # on bytes numpy counts: linear in the edges
    return weights[order], first[order], second[order]


def axis_edges(grey: GreyVolume, body: MaskVolume, *, axis: int) -> tuple[Weights, Nodes, Nodes]:
    """The edges along one axis, in the order of their voxels."""
    voxel = np.arange(grey.size, dtype=np.int32)
    voxel = rearrange(voxel, "(d h w) -> d h w", **parse_shape(grey, "d h w"))
    before, after = (
        tuple(part if axis == other else slice(None) for other in range(3))
        for part in (slice(None, -1), slice(1, None))
    )
    both = body[before] & body[after]
    darker = np.minimum(grey[before], grey[after])[both]
    brighter = np.maximum(grey[before], grey[after])[both]
    return brighter - darker, voxel[before][both], voxel[after][both]


def compiled(function: Callable) -> Callable:
    """Compile at the first call and keep the machine code on disk; other threads run meanwhile.

    The tests wrap every function to check its types; numba needs the bare one.
    """
    return njit(cache=True, nogil=True)(unwrap(function))


@compiled
def root_of(parent: ndarray, voxel: int) -> int:
    """The voxel that stands for the segment; halves the path on the way."""
    while parent[voxel] != voxel:
        parent[voxel] = parent[parent[voxel]]
        voxel = parent[voxel]
    return voxel


@compiled
def join(parent: ndarray, size: ndarray, one: int, other: int) -> int:
    """Join two segments by their roots; the first voxel of both stands for them."""
    root = min(one, other)
    parent[max(one, other)] = root
    size[root] = size[one] + size[other]
    return root


@compiled
def join_alike(
    parent: ndarray,
    size: ndarray,
    weights: ndarray,
    first: ndarray,
    second: ndarray,
    scale: float,
) -> None:
    """First pass: join where an edge is no heavier than what both segments already hold."""
    heaviest = np.zeros(parent.size, dtype=np.uint8)
    for edge in range(weights.size):
        one, other = root_of(parent, first[edge]), root_of(parent, second[edge])
        bound = min(heaviest[one] + scale / size[one], heaviest[other] + scale / size[other])
        if one != other and weights[edge] <= bound:
            heaviest[join(parent, size, one, other)] = weights[edge]


@compiled
def join_small(
    parent: ndarray, size: ndarray, first: ndarray, second: ndarray, min_size: int
) -> None:
    """Second pass: join where either segment is smaller than `min_size`."""
    for edge in range(first.size):
        one, other = root_of(parent, first[edge]), root_of(parent, second[edge])
        if one != other and min(size[one], size[other]) < min_size:
            join(parent, size, one, other)


@compiled
def number_segments(parent: ndarray, size: ndarray, body: ndarray, min_size: int) -> ndarray:
    """Labels 1..n in the order of each segment's first voxel; 0 outside and for small islands."""
    labels = np.zeros(parent.size, dtype=np.int32)
    count = 0
    for voxel in range(parent.size):
        root = root_of(parent, voxel)
        candidate = body[voxel] and size[root] >= min_size
        if candidate and root == voxel:
            count += 1
            labels[voxel] = count
        elif candidate:
            labels[voxel] = labels[root]
    return labels
