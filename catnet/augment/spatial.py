"""Affine and elastic change of place, image and mask by one sampling grid.

Elastic after "Best Practices for Convolutional Neural Networks Applied to Visual Document
Analysis", Simard et al., ICDAR 2003.

    output(p) = input(c + A^-1 (p + e(p) - c - shift)),    A = rotation * shear * scale
    e = alpha * gaussian_sigma(noise),                     noise in [-1, 1), zero beyond the border

c is the center of the slice. The content moves by A and the shift first, then by the elastic field:
two warps, sampled once. Positions are (column, row) in pixels.
"""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from catnet.augment.recipe import Params
from catnet.types import Features

Displacement = Float[Tensor, "b h w 2"]


def displacement(params: Params) -> Displacement:
    """Where an output pixel looks, less where it is: pixels (right, down)."""
    height, width = params.noise.shape[-2:]
    pixels = centered_pixels(height, width, like=params.noise)
    return undo_affine(pixels + elastic(params), params) - pixels


def warp(images: Features, masks: Features, *, by: Displacement) -> tuple[Features, Features]:
    """Sample images (bilinear) and masks (nearest) at the pixels that `by` points to.

    Channels are slices: all of an episode move alike. Beyond the border an image has its own
    minimum (for a z-scored scan that is air; zero would be grey), a mask has 0. An episode whose
    displacement is zero everywhere comes back bit for bit, where sampling would round.
    """
    height, width = images.shape[-2:]
    column, row = (centered_pixels(height, width, like=by) + by).unbind(dim=-1)
    grid = torch.stack([column * (2 / width), row * (2 / height)], dim=-1)
    floor = images.amin(dim=(-2, -1), keepdim=True)
    moved_images = F.grid_sample(images - floor, grid, align_corners=False) + floor
    moved_masks = F.grid_sample(masks, grid, mode="nearest", align_corners=False)
    still = rearrange((by == 0).flatten(start_dim=1).all(dim=1), "b -> b 1 1 1")
    return torch.where(still, images, moved_images), moved_masks


def centered_pixels(height: int, width: int, *, like: Tensor) -> Float[Tensor, "h w 2"]:
    """(column, row) of every pixel, counted from the center of the slice."""
    row, column = (
        torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
        for size in (height, width)
    )
    return torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)


def elastic(params: Params) -> Displacement:
    """The noise, smoothed and scaled to pixels."""
    height, width = params.noise.shape[-2:]
    down = gaussian_matrix(params.sigma, size=height)
    right = gaussian_matrix(params.sigma, size=width)
    smooth = einsum(down, params.noise, right, "b i h, b xy h w, b j w -> b i j xy")
    return rearrange(params.alpha, "b -> b 1 1 1") * smooth


def gaussian_matrix(sigma: Float[Tensor, " b"], *, size: int) -> Float[Tensor, "b i j"]:
    """One pass of a Gaussian over `size` pixels as a matrix; beyond the border lies zero."""
    reach = torch.arange(1 - size, size, device=sigma.device, dtype=sigma.dtype)
    weight = torch.exp(-0.5 * (reach / rearrange(sigma, "b -> b 1")) ** 2)
    weight = weight / weight.sum(dim=1, keepdim=True)
    place = torch.arange(size, device=sigma.device)
    return weight[:, rearrange(place, "i -> i 1") - place + size - 1]


def undo_affine(position: Displacement, params: Params) -> Displacement:
    """Where the content at `position` (from the center) was before A and the shift moved it.

    Written out by axis: a matrix product may run in half precision, which is a pixel at the border.
    """
    turn, slant = (
        torch.deg2rad(rearrange(angle, "b -> b 1 1")) for angle in (params.rotation, params.shear)
    )
    right, down = (position - rearrange(params.shift, "b xy -> b 1 1 xy")).unbind(dim=-1)
    column = turn.cos() * right - turn.sin() * down
    row = turn.sin() * right + turn.cos() * down
    source = torch.stack([column - slant.tan() * row, row], dim=-1)
    return source / rearrange(params.scale, "b -> b 1 1 1")
