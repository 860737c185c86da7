"""Plain reference: one training episode as the field's public loaders make it.

Every episode reads a whole case, z-scores it, and looks for its supervoxels by `np.unique`; then
one of its two slices is changed in double precision on the CPU, one interpolation after the other:

    gamma -> cubic affine -> elastic (cubic for the image, nearest neighbor for the mask)

Sampling after ADNet, Hansen et al., arXiv 2203.02048; augmentation after Ouyang et
al., arXiv 2007.09886, with the ranges of the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Shaped
from numpy import ndarray
from numpy.random import Generator
from scipy import ndimage

from catnet.config import AugmentSettings
from catnet.episode import Episode

Slice = Float[ndarray, "h w"]
Mask = Bool[ndarray, "h w"]


@dataclass(frozen=True)
class Pair:
    """Two neighboring slices of a case with the masks of one supervoxel."""

    support: Slice
    support_mask: Mask
    query: Slice
    query_mask: Mask


def plain_pair(folders: Sequence[Path], generator: Generator, *, min_pixels: int) -> Pair:
    """One unaugmented episode of the prepared cases in `folders`."""
    folder = folders[generator.integers(len(folders))]
    image = np.load(folder / "image.npy", allow_pickle=False).astype(np.float64)
    supervoxels = np.load(folder / "supervoxels.npy", allow_pickle=False)
    image = (image - image.mean()) / image.std()
    labels = [label for label in np.unique(supervoxels) if label > 0]
    while True:
        mask = supervoxels == generator.choice(labels)
        pixels = mask.sum(axis=(1, 2))
        starts = [
            place
            for place, pair in enumerate(pairwise(pixels))
            if min(pair) > 0 and max(pair) >= min_pixels
        ]
        if starts:
            break
    one = generator.choice(starts)
    first, second = (one, one + 1) if generator.random() < 0.5 else (one + 1, one)
    return Pair(image[first], mask[first], image[second], mask[second])


def plain_augmented(pair: Pair, generator: Generator, settings: AugmentSettings) -> Pair:
    """The same episode with one of its sides changed."""
    if generator.random() >= settings.probability:
        return pair
    if generator.random() < 0.5:
        image, mask = plain_change(pair.support, pair.support_mask, generator, settings)
        return Pair(image, mask, pair.query, pair.query_mask)
    image, mask = plain_change(pair.query, pair.query_mask, generator, settings)
    return Pair(pair.support, pair.support_mask, image, mask)


def plain_change(
    image: Slice, mask: Mask, generator: Generator, settings: AugmentSettings
) -> tuple[Slice, Mask]:
    """Gamma, affine and elastic change of one slice with its mask."""
    image = plain_gamma(image, generator.uniform(*settings.gamma))
    matrix, offset = plain_affine(generator, settings, shape=image.shape)
    floor = image.min()
    image = ndimage.affine_transform(image, matrix, offset, order=3, cval=floor)
    mask = ndimage.affine_transform(mask, matrix, offset, order=0)
    noise = generator.uniform(-1, 1, (2, *image.shape))
    bend = [
        settings.alpha * ndimage.gaussian_filter(part, settings.sigma, mode="constant")
        for part in noise
    ]
    places = np.indices(image.shape) + bend
    image = ndimage.map_coordinates(image, places, order=3, cval=floor)
    mask = ndimage.map_coordinates(mask, places, order=0)
    return image, mask


def plain_gamma(image: Slice, gamma: float) -> Slice:
    """Grey levels between the slice's minimum and maximum, raised to `gamma`."""
    low, high = image.min(), image.max()
    return low + (high - low) * ((image - low) / (high - low)) ** gamma


def plain_affine(
    generator: Generator, settings: AugmentSettings, *, shape: tuple[int, int]
) -> tuple[Float[ndarray, "2 2"], Float[ndarray, " 2"]]:
    """Matrix and offset, in (row, column), from a pixel to where its content was before."""
    turn, slant = np.deg2rad(
        generator.uniform(
            (-settings.rotation, -settings.shear), (settings.rotation, settings.shear)
        )
    )
    shift = generator.uniform(-settings.shift, settings.shift, 2)
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    shear = np.array([[1, 0], [np.tan(slant), 1]])
    matrix = np.linalg.inv(rotate @ shear * generator.uniform(*settings.scale))
    center = (np.array(shape) - 1) / 2
    return matrix, center - matrix @ (center + shift)


def plain_episode(pair: Pair, *, device: torch.device, dtype: torch.dtype) -> Episode:
    """The pair as a batch of one."""

    def tensor(array: Shaped[ndarray, "h w"], axes: str) -> torch.Tensor:
        return rearrange(torch.from_numpy(array).to(device=device, dtype=dtype), f"h w -> {axes}")

    return Episode(
        support=tensor(pair.support, "1 1 1 h w"),
        support_mask=tensor(pair.support_mask, "1 1 h w"),
        query=tensor(pair.query, "1 1 h w"),
        query_mask=tensor(pair.query_mask, "1 h w"),
    )
