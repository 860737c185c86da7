"""Scans of one object that is known in world coordinates, and a predictor that knows it."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import torch
from jaxtyping import Float
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from catnet.data.card import Card
from catnet.evaluate.predictors import CopyPredictor, Support
from catnet.predict.models import Model
from catnet.predict.session import Session

CODES = [
    "".join(letters) for order in permutations(("LR", "PA", "IS")) for letters in product(*order)
]
CENTER, RADII = np.array([6.0, -9.0, 4.0]), np.array([17.0, 11.0, 23.0])
LOBE, LOBE_RADIUS = np.array([16.0, -3.0, -6.0]), 12.0  # so that no flip or swap looks alike


def level(points):
    """Signed distance in mm, roughly: below 0 inside of the object."""
    shifted = (points - CENTER) / RADII
    norm = np.linalg.norm(shifted, axis=-1)
    slope = np.linalg.norm(shifted / RADII, axis=-1)
    first = np.where(norm > 0, (norm - 1) * norm / np.maximum(slope, 1e-9), -RADII.min())
    return np.minimum(first, np.linalg.norm(points - LOBE, axis=-1) - LOBE_RADIUS)


def places(grid):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return apply_affine(grid.affine, index)


def affine_of(codes, *, spacing, shape, rotation=(0, 0, 0), center=(3.0, -2.0, 5.0)):
    """Axes as `codes` say, then turned by degrees around x, y, z; the middle at `center`."""
    linear = np.zeros((3, 3))
    for axis, code in enumerate(codes):
        row = next(n for n, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        linear[row, axis] = spacing[axis] * (1 if code in "RAS" else -1)
    linear = Rotation.from_euler("xyz", rotation, degrees=True).as_matrix() @ linear
    middle = (np.array(shape) - 1) / 2
    return nib.affines.from_matvec(linear, np.array(center) - linear @ middle)


def make_card(**changes):
    content = {
        "name": "scene",
        "title": "one object",
        "source": "made by the tests",
        "license": "CC0-1.0",
        "citation": "none",
        "modality": "MR",
        "image": "image_{case}.nii.gz",
        "label": "label_{case}.nii.gz",
        "orientation": "LAS",
        "spacing": (None, None, None),
        "clip": {"percentiles": (0, 100)},
        "size": (64, 64),
        "organs": {"object": 1},
        "supervoxels": {"min_size": 1},
        "folds": 2,
    }
    return Card.model_validate(content | changes)


class Oracle(CopyPredictor):
    """Knows the object on the prepared grid of one query, by the order in which slices come."""

    def __init__(self, grid):
        width = min(grid.spacing)
        truth = np.clip(0.5 - level(places(grid)) / width, 0, 1)
        self.truth = np.ascontiguousarray(truth.T.astype(np.float32))
        self.next = 0

    def segment(self, support, query, count) -> Float[np.ndarray, "n h w"]:
        self.next += count
        return self.truth[self.next - count : self.next]


def oracle_session(card, grid):
    model = Model("oracle", Oracle(grid), card)
    nothing = Support(None, torch.zeros(1, 1, 1, 1))
    return Session(model, card, (), {1: "object"}, {1: nothing})


def write_scan(path, affine, shape, *, seed=0, header=None):
    """An image in which the object is brighter than the noise around it."""
    noise = np.random.default_rng(seed).normal(100, 20, shape)
    grid = nib.Nifti1Image(noise.astype(np.int16), affine)
    bright = level(apply_affine(affine, np.moveaxis(np.indices(shape), 0, -1))) < 0
    voxels = (noise + 200 * bright).astype(np.int16)
    image = nib.Nifti1Image(voxels, grid.affine, header)
    nib.save(image, path)
    return path
