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

from functools import lru_cache

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from catnet.augment.recipe import Params
from catnet.types import Features


def warp(images: Features, masks: Features, *, by: Params) -> tuple[Features, Features]:
    """Sample images (bilinear) and masks (nearest) where the pixels of `by` look.

    Channels are slices: all of an episode move alike. Beyond the border an image has its own
    minimum (for a z-scored scan that is air; zero would be grey), a mask has 0. An episode that
    stays comes back bit for bit, where sampling would round.
    """
    height, width = images.shape[-2:]
    grid = rearrange(sampling_grid(by, height=height, width=width), "b xy h w -> b h w xy")
    floor = images.amin(dim=(-2, -1), keepdim=True)
    moved = F.grid_sample(images - floor, grid, align_corners=False).add_(floor)
    moved_masks = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
    if by.alpha == 0:  # elastic noise moves every episode
        moved = torch.where(stays(by), images, moved)
    return moved, moved_masks


def stays(params: Params) -> Bool[Tensor, "b 1 1 1"]:
    """Which episodes the affine values leave where they are."""
    moves = torch.stack([params.rotation, params.shear, params.scale - 1], dim=1)
    any_moves = torch.cat([moves, params.shift], dim=1).any(dim=1)
    return rearrange(~any_moves, "b -> b 1 1 1")


def sampling_grid(params: Params, *, height: int, width: int) -> Float[Tensor, "b 2 h w"]:
    """Where an output pixel looks, (column, row) from the center in halves of the slice.

    A^-1 is linear, so it is applied to the few nodes of the noise and never to the pixels; what is
    added to the field depends on the column alone or on the row alone. These are sums, as a matrix
    product may run in half precision, which is a pixel at the border.
    """
    inverse = inverse_affine(params, height=height, width=width)
    by_column, by_row = rearrange(inverse, "(to of) b -> of b to 1 1", to=2)
    right, down = rearrange(params.shift, "b xy -> xy b 1 1 1")
    column, row = (centered(size, device=inverse.device) for size in (width, height))
    across = by_column * (column - right)
    along = by_row * (rearrange(row, "h -> h 1") - down)
    noise = by_column * params.noise[:, :1] + by_row * params.noise[:, 1:]
    field = smooth(params.alpha * noise, params, height=height, width=width)
    return field.add_(across).add_(along)  # in place: small arrays stay in the cache


def inverse_affine(params: Params, *, height: int, width: int) -> Float[Tensor, "4 b"]:
    """A^-1, row by row: where content was, in halves of the slice, by where it is, in pixels."""
    turn, slant = torch.deg2rad(params.rotation), torch.deg2rad(params.shear).tan()
    sine, cosine = turn.sin() / params.scale, turn.cos() / params.scale
    column = cosine - slant * sine, -sine - slant * cosine
    row = sine, cosine
    parts = [part * (2 / width) for part in column] + [part * (2 / height) for part in row]
    return torch.stack(parts)


@lru_cache(maxsize=8)
def centered(size: int, *, device: torch.device) -> Float[Tensor, " size"]:
    """The places of `size` pixels along an axis, counted from the middle of the slice."""
    return torch.arange(size, device=device, dtype=torch.float32) - (size - 1) / 2


def smooth(
    noise: Float[Tensor, "b 2 i j"], params: Params, *, height: int, width: int
) -> Float[Tensor, "b 2 h w"]:
    """Noise on the nodes of a lattice, made a field over the pixels by the Gaussian."""
    lattice = params.sigma, params.spacing
    down = gaussian_matrix(*lattice, pixels=height, nodes=noise.shape[-2], device=noise.device)
    right = gaussian_matrix(*lattice, pixels=width, nodes=noise.shape[-1], device=noise.device)
    return down @ (noise @ right.T)


@lru_cache(maxsize=8)
def gaussian_matrix(
    sigma: float, spacing: int, *, pixels: int, nodes: int, device: torch.device
) -> Float[Tensor, "pixels nodes"]:
    """One pass of the Gaussian along an axis as a matrix; beyond the border lies zero.

    The weights are those of a filter over all pixels, which sum to one, times the root of the
    spacing: one node carries the variance of the pixels that it stands for.
    """
    place, node, every = (centered(size, device=device) for size in (pixels, nodes, 2 * pixels + 1))
    distance = rearrange(place, "p -> p 1") - spacing * node
    return bell(distance / sigma) * spacing**0.5 / bell(every / sigma).sum()


def bell(x: Tensor) -> Tensor:
    """exp(-x^2 / 2), and zero from six on: numbers that are too small for floats are slow."""
    return torch.exp(-0.5 * x.clamp(-6, 6) ** 2) * (x.abs() < 6)
