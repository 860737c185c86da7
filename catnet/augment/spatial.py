"""Affine and elastic change of place, image and mask by one sampling grid.

Elastic after "Best Practices for Convolutional Neural Networks Applied to Visual Document
Analysis", Simard et al., ICDAR 2003.

    output(p) = input(c + A^-1 (p + e(p) - c - shift)),    A = rotation * shear * scale
    e = alpha * gaussian_sigma(noise),                     noise in [-1, 1), zero beyond the border

c is the center of the slice. The content moves by A and the shift first, then by the elastic field:
two warps, sampled once. Positions are (column, row) in pixels.

The Gaussian leaves nothing of what is much finer than itself, so the noise lies on a lattice of
every `spacing`-th pixel: the field has the same variance and the same covariance,
exp(-distance^2 / 4 sigma^2), as from noise at every pixel, and with a spacing of one it is that.
"""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from catnet.augment.recipe import Params
from catnet.types import Features

Displacement = Float[Tensor, "b 2 h w"]


def displacement(params: Params, *, height: int, width: int) -> Displacement:
    """Where an output pixel looks, less where it is: pixels (right, down).

    A^-1 is linear, so it is applied to the few nodes of the noise and never to the pixels.
    """
    inverse = inverse_affine(params)
    change = inverse - torch.eye(2, device=inverse.device)
    by_column, by_row = rearrange(change, "b to of -> of b to 1 1")
    offset = rearrange(applied(inverse, params.shift), "b xy -> b xy 1 1")
    across = by_column * centered(width, like=inverse) - offset
    down = by_row * rearrange(centered(height, like=inverse), "h -> h 1")
    noise = rearrange(params.alpha, "b -> b 1 1 1") * applied(inverse, params.noise)
    field = smooth(noise, params, height=height, width=width)
    return field.add_(across).add_(down)  # in place: small arrays stay in the cache


def warp(images: Features, masks: Features, *, by: Displacement) -> tuple[Features, Features]:
    """Sample images (bilinear) and masks (nearest) at the pixels that `by` points to.

    Channels are slices: all of an episode move alike. Beyond the border an image has its own
    minimum (for a z-scored scan that is air; zero would be grey), a mask has 0. An episode whose
    displacement is zero everywhere comes back bit for bit, where sampling would round.
    """
    height, width = images.shape[-2:]
    column, row = torch.meshgrid(centered(width, like=by), centered(height, like=by), indexing="xy")
    right, down = by.unbind(dim=1)
    grid = torch.stack([(right + column) / (width / 2), (down + row) / (height / 2)], dim=-1)
    floor = images.amin(dim=(-2, -1), keepdim=True)
    moved_images = F.grid_sample(images - floor, grid, align_corners=False).add_(floor)
    moved_masks = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
    still = torch.linalg.vector_norm(by, torch.inf, dim=(1, 2, 3), keepdim=True) == 0
    return torch.where(still, images, moved_images), moved_masks


def centered(size: int, *, like: Tensor) -> Float[Tensor, " size"]:
    """The places of `size` pixels along an axis, counted from the middle of the slice."""
    return torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2


def smooth(
    noise: Float[Tensor, "b 2 i j"], params: Params, *, height: int, width: int
) -> Float[Tensor, "b 2 h w"]:
    """Noise on the nodes of a lattice, made a field over the pixels by the Gaussian."""
    down = right = gaussian_matrix(params, pixels=height, nodes=noise.shape[-2])
    if width != height:
        right = gaussian_matrix(params, pixels=width, nodes=noise.shape[-1])
    return rearrange(down, "b h i -> b 1 h i") @ noise @ rearrange(right, "b w j -> b 1 j w")


def gaussian_matrix(params: Params, *, pixels: int, nodes: int) -> Float[Tensor, "b pixels nodes"]:
    """One pass of the Gaussian along an axis as a matrix; beyond the border lies zero.

    The weights are those of a filter over all pixels, which sum to one, times the root of the
    spacing: one node carries the variance of the pixels that it stands for.
    """
    sigma = rearrange(params.sigma, "b -> b 1 1")
    spacing = rearrange(params.spacing, "b -> b 1 1")
    place, node = (centered(size, like=params.noise) for size in (pixels, nodes))
    distance = rearrange(place, "p -> p 1") - spacing * node
    every = centered(2 * pixels + 1, like=params.noise)
    total = reduce(bell(every / sigma), "b 1 p -> b 1 1", "sum")
    return bell(distance / sigma) * spacing.sqrt() / total


def bell(x: Tensor) -> Tensor:
    """exp(-x^2 / 2), and zero from six on: numbers that are too small for floats are slow."""
    return torch.exp(-0.5 * x.clamp(-6, 6) ** 2) * (x.abs() < 6)


def inverse_affine(params: Params) -> Float[Tensor, "b 2 2"]:
    """A^-1 as (column, row) of where content was, by (column, row) of where it is."""
    turn, slant = torch.deg2rad(params.rotation), torch.deg2rad(params.shear).tan()
    sine, cosine = turn.sin(), turn.cos()
    entries = [cosine - slant * sine, -sine - slant * cosine, sine, cosine]
    rows = rearrange(torch.stack(entries), "(to of) b -> b to of", to=2)
    return rows / rearrange(params.scale, "b -> b 1 1")


def applied(matrix: Float[Tensor, "b 2 2"], vectors: Float[Tensor, "b 2 *n"]) -> Tensor:
    """Every vector by the matrix of its episode; sums, as a matrix product may run in half
    precision, which is a pixel at the border.
    """
    column, row = vectors.unbind(dim=1)
    shape = (slice(None), slice(None), *[None] * (column.ndim - 1))
    return matrix[:, :, 0][shape] * column.unsqueeze(1) + matrix[:, :, 1][shape] * row.unsqueeze(1)
