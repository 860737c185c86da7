"""Synthetic abdomens, CT and MR, with four labelled organs: data for tests and for a first run.

A patient is a trunk and a list of ellipsoids that stray, grow, turn and bend from case to case.
With center c, turn R, radii a, growth g and one smooth displacement u of the whole body, a part is

    level(p) < 1,    level(p) = | R (p + u(p) - c) / (g a) |

Parts are painted in order, the later ones over the earlier ones. All lengths are millimeters in
NIfTI's world axes: x to the patient's right, y to the front, z to the head.

No paper: the values imitate portal-venous CT and fat-suppressed T2 (the T2-SPIR of CHAOS).
"""

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import nibabel as nib
import numpy as np
from einops import rearrange
from jaxtyping import Bool, Float32, Real, UInt8
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from catnet.arrays import Affine
from catnet.files import write_bytes

Modality = Literal["CT", "MR"]
Triple = tuple[float, float, float]
Scan = Float32[ndarray, "x y z"]
Labels = UInt8[ndarray, "x y z"]
Points = Float32[ndarray, "3 n"]
Mask = Bool[ndarray, " n"]

TRUNK = (128.0, 92.0)  # half-axes of the trunk, a superellipse of exponent 2.5
WALL = 9.0  # muscle between the fat under the skin and the cavity
ENDLESS = 1e4  # half-length of what leaves the field of view at both ends
RIM = 0.09  # fat around an organ, in parts of its radii
FLIPS = {"RAS": (1, 1, 1), "LAS": (-1, 1, 1), "LPS": (-1, -1, 1), "RPI": (1, -1, -1)}


class Part(NamedTuple):
    """Ellipsoids (center, radii) of one tissue; the innermost `core_size` of them is another."""

    tissue: str
    lobes: tuple[tuple[Triple, Triple], ...]
    label: int = 0
    stray: float = 4.0
    core: str = "fat"
    core_size: float = 0.0


# mean, how far it varies between cases, standard deviation of the texture
TISSUES = {
    "air": {"CT": (-1000, 0, 0), "MR": (0.0, 0.0, 0.0)},
    "fat": {"CT": (-100, 8, 5), "MR": (0.10, 0.03, 0.02)},
    "gas": {"CT": (-850, 40, 30), "MR": (0.02, 0.01, 0.01)},
    "muscle": {"CT": (52, 6, 6), "MR": (0.20, 0.03, 0.03)},
    "bone": {"CT": (520, 80, 50), "MR": (0.12, 0.03, 0.02)},
    "marrow": {"CT": (230, 50, 30), "MR": (0.26, 0.05, 0.04)},
    "fluid": {"CT": (12, 8, 3), "MR": (1.20, 0.10, 0.03)},
    "vessel": {"CT": (190, 40, 4), "MR": (0.06, 0.03, 0.01)},
    "bowel": {"CT": (65, 20, 12), "MR": (0.45, 0.12, 0.10)},
    "liver": {"CT": (106, 9, 5), "MR": (0.45, 0.05, 0.04)},
    "spleen": {"CT": (132, 10, 3), "MR": (0.76, 0.06, 0.04)},
    "kidney": {"CT": (182, 16, 7), "MR": (0.98, 0.06, 0.06)},
    "pelvis": {"CT": (150, 14, 8), "MR": (0.84, 0.08, 0.08)},
}
NAMES = tuple(TISSUES)
# Hounsfield units without contrast agent; how much of it a case has is drawn from PHASES
NATIVE = {"vessel": 40, "bowel": 35, "liver": 58, "spleen": 48, "kidney": 32, "pelvis": 20}
PHASES = (0.7, 1.2)

BACK = (Part("muscle", (((33, -68, 0), (26, 14, ENDLESS)), ((-33, -68, 0), (26, 14, ENDLESS)))),)
UPPER = (
    Part("gas", (((58, 0, 128), (52, 64, 50)), ((-58, 0, 122), (52, 64, 50)))),
    Part("muscle", (((-42, 38, 46), (38, 26, 34)),), 0, 12, "fluid", 0.84),
)
ORGANS = (
    Part("liver", (((56, 10, 38), (57, 58, 64)), ((-2, 36, 52), (56, 30, 32))), 1, 22),
    Part("fluid", (((38, 48, -8), (11, 18, 15)),), 0, 9),
    Part("spleen", (((-81, -20, 50), (30, 43, 43)),), 4, 21),
    Part("kidney", (((64, -32, -36), (32, 29, 46)),), 2, 19, "pelvis", 0.45),
    Part("kidney", (((-62, -32, -32), (32, 29, 46)),), 3, 19, "pelvis", 0.45),
)
SPINE = (
    Part("bone", (((0, -62, 0), (15, 15, ENDLESS)),), 0, 2, "fluid", 0.55),
    Part("bone", (((0, -38, 0), (21, 16, ENDLESS)),), 0, 2, "marrow", 0.85),
    Part("vessel", (((-8, -14, 0), (9, 9, ENDLESS)), ((16, -14, 0), (10, 8, ENDLESS))), 0, 3),
)


@dataclass(frozen=True)
class Phantom:
    """A scan and its labels on one grid (1 liver, 2 right kidney, 3 left kidney, 4 spleen).

    image   (x, y, z) Hounsfield units, int16, for CT; arbitrary units >= 0, float32, for MR
    label   (x, y, z) uint8, 0 outside the organs
    affine  (4, 4)    voxel index to world millimeters; which way an axis runs varies by case
    """

    image: Real[ndarray, "x y z"]
    label: Labels
    affine: Affine


def draw_phantom(
    modality: Modality, *, seed: int, case: int, size: tuple[int, int, int] = (192, 192, 28)
) -> Phantom:
    """Draw one case, a pure function of its arguments.

    The field of view, about 307 x 307 x 205 mm, varies by case and is divided into `size` voxels.
    The same seed and case is the same patient on the same grid in both modalities.
    """
    generator = np.random.default_rng([seed, case])
    affine = draw_grid(generator, size=size)
    axes = [affine[i, i] * np.arange(size[i]) + affine[i, 3] for i in range(3)]
    world = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
    canvas = draw_patient(generator, points=rearrange(world, "i x y z -> i (x y z)"))
    tissue, label = rearrange(canvas, "kind (x y z) -> kind x y z", x=size[0], y=size[1])
    clean = fill(generator, tissue=tissue, modality=modality)
    if modality == "CT":
        image = scan_ct(generator, clean=clean, world=world, trunk=tissue > 0)
    else:
        image = scan_mr(generator, clean=clean, world=world)
    return Phantom(image, label, affine)


def write_phantoms(folder: Path, *, modality: Modality, cases: int, seed: int = 0) -> None:
    """Write cases 1 to `cases` as `image_N.nii.gz` and `label_N.nii.gz`; pairs there stay."""
    for case in range(1, cases + 1):
        label, image = (folder / f"{kind}_{case}.nii.gz" for kind in ("label", "image"))
        if label.exists() and image.exists():
            continue
        phantom = draw_phantom(modality, seed=seed, case=case)
        write_nifti(label, voxels=phantom.label, affine=phantom.affine)
        write_nifti(image, voxels=phantom.image, affine=phantom.affine)


def write_nifti(path: Path, *, voxels: Real[ndarray, "x y z"], affine: Affine) -> None:
    """Write compressed; there is never half a file."""
    nifti = nib.Nifti1Image(voxels, affine)
    nifti.header.set_xyzt_units("mm")
    write_bytes(path, gzip.compress(nifti.to_bytes(), compresslevel=1, mtime=0))


def draw_grid(generator: Generator, *, size: tuple[int, int, int]) -> Affine:
    """Affine of a grid around the world's origin, its axes flipped as on some scanner."""
    flips = FLIPS[generator.choice(list(FLIPS))]
    in_plane, through = generator.uniform((298, 190), (316, 220))
    spacing = np.array(flips) * (in_plane, in_plane, through) / size
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(size) - 1) / 2
    return affine


def draw_patient(generator: Generator, *, points: Points) -> UInt8[ndarray, "2 n"]:
    """Tissue (an index into `NAMES`, air only outside of the trunk) and label of every point."""
    build = generator.uniform((0.9, 0.88, 0.9), (1.06, 1.06, 1.06))
    shift = generator.uniform((-12, -10, -14), (12, 20, 2))
    fat = generator.uniform(5, 14)
    sway = generator.uniform(-3.5, 3.5, (3, 4)).astype(np.float32)
    points = (points - column(shift)) / column(build)
    points = points + sway @ waves(generator, points, lengths=(110, 220), count=4)
    trunk = within_trunk(points, depth=0.0)
    points = points[:, trunk]
    flesh, cavity = (within_trunk(points, depth=depth) for depth in (fat, fat + WALL))
    inside = np.zeros((2, points.shape[1]), dtype=np.uint8)
    inside[0] = np.where(flesh & ~cavity, NAMES.index("muscle"), NAMES.index("fat"))
    middle = (*UPPER, *draw_bowel(generator), *ORGANS)
    for parts, room in ((BACK, flesh), (middle, cavity), (SPINE, flesh)):
        for part in parts:
            paint(generator, part, canvas=inside, points=points, room=room)
    canvas = np.zeros((2, len(trunk)), dtype=np.uint8)
    canvas[:, trunk] = inside
    return canvas


def column(values: ndarray) -> Float32[ndarray, "i 1"]:
    """One value an axis, in the precision of the points."""
    return rearrange(values.astype(np.float32), "i -> i 1")


def waves(generator: Generator, points: Points, *, lengths: tuple[int, int], count: int) -> ndarray:
    """Plane waves (count, n) of unit height in random directions; `lengths` bounds their length."""
    direction = generator.standard_normal((count, 3))
    direction *= 2 * np.pi / np.linalg.norm(direction, axis=1, keepdims=True)
    direction /= generator.uniform(*lengths, (count, 1))
    phase = generator.uniform(0, 2 * np.pi, count)
    return np.sin(direction.astype(np.float32) @ points + column(phase))


def within_trunk(points: Points, *, depth: float) -> Mask:
    """Whether a point lies at least `depth` mm (along the axes) under the skin."""
    x, y = np.abs(points[:2]) / column(np.array(TRUNK) - depth)
    return x**2.5 + y**2.5 < 1


def draw_bowel(generator: Generator, *, loops: int = 12) -> list[Part]:
    """Blobs of about an organ's brightness in the lower front, some full of fluid or of gas."""
    centers = generator.uniform((-80, -5, -115), (80, 60, 0), (loops, 3))
    radii = generator.uniform(12, 26, (loops, 3))
    cores = generator.choice(["fluid", "gas", "bowel"], loops)
    return [
        Part("bowel", ((tuple(center), tuple(axes)),), core=str(core), core_size=0.7)
        for center, axes, core in zip(centers, radii, cores, strict=True)
    ]


def paint(
    generator: Generator, part: Part, *, canvas: UInt8[ndarray, "2 n"], points: Points, room: Mask
) -> None:
    """Put a varied part on the canvas (tissue, label) where there is room; organs have a rim."""
    stray = part.stray * generator.uniform((-1, -0.8, -1.3), (1, 0.8, 1.3))
    growth = generator.uniform(0.92, 1.15) * generator.uniform(0.9, 1.1, 3)
    turn = Rotation.from_rotvec(part.stray / 40 * generator.uniform(-1, 1, 3)).as_matrix()
    level = np.full_like(points[0], np.inf)
    for center, radii in part.lobes:
        scaled = np.float32(turn) @ (points - column(center + stray)) / column(growth * radii)
        level = np.minimum(level, np.sqrt((scaled**2).sum(axis=0)))
    if part.label:
        canvas[:, room & (level < 1 + RIM)] = [[NAMES.index("fat")], [0]]
    canvas[:, room & (level < 1)] = [[NAMES.index(part.tissue)], [part.label]]
    canvas[0, room & (level < part.core_size)] = NAMES.index(part.core)


def fill(generator: Generator, *, tissue: Labels, modality: Modality) -> Scan:
    """The scan without noise: every tissue's own mean of this case, and its smooth texture."""
    mean, spread, texture = np.array([row[modality] for row in TISSUES.values()], np.float32).T
    mean = mean + spread * generator.uniform(-1, 1, len(mean)).astype(np.float32)
    if modality == "CT":
        native = np.array([NATIVE.get(name, mean[n]) for n, name in enumerate(NAMES)], np.float32)
        mean = native + np.float32(generator.uniform(*PHASES)) * (mean - native)
    grain = gaussian_filter(generator.standard_normal(tissue.shape, np.float32), (1.5, 1.5, 0.5))
    clean = mean[tissue] + texture[tissue] * grain / grain.std()
    return gaussian_filter(clean, (0.5, 0.5, 0.0))


def scan_ct(generator: Generator, *, clean: Scan, world: ndarray, trunk: ndarray) -> ndarray:
    """Hounsfield units, int16: a curved table at a distance under the back, and noise."""
    gap, thickness, units = generator.uniform((12, 6, -150), (16, 11, 250)).tolist()
    x, y, _ = world
    depth = y[trunk].min() - gap + x**2 / 1200 - y
    table = (depth > 0) & (depth < thickness) & (np.abs(x) < 130)
    noise = 12 * generator.standard_normal(clean.shape, np.float32)
    return np.clip(np.rint(np.where(table, units, clean) + noise), -1024, 3071).astype(np.int16)


def scan_mr(generator: Generator, *, clean: Scan, world: ndarray) -> Scan:
    """Arbitrary units: a smooth coil bias of at most 30 %, Rician noise, a scale of the case."""
    strength, scale = generator.uniform((0.15, 400), (0.30, 1300)).tolist()
    points = rearrange(world, "i x y z -> i (x y z)")
    bias = waves(generator, points, lengths=(300, 600), count=3).sum(axis=0)
    bias = rearrange(bias, "(x y z) -> x y z", x=clean.shape[0], y=clean.shape[1])
    bias = 1 + strength * bias / np.abs(bias).max()
    real, imaginary = 0.025 * generator.standard_normal((2, *clean.shape), np.float32)
    return scale * np.hypot(clean * bias + real, imaginary)
