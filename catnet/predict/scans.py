"""Scans as a predictor needs them: prepared in memory as a card says, nothing written."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from einops import rearrange

from catnet.arrays import LabelVolume, Volume
from catnet.data.card import Card, SupervoxelSettings
from catnet.data.labels import check_pair, is_label_like, read_numbers
from catnet.data.prepare import prepare_image
from catnet.data.volume import Array, Grid, ScanFile, read_volume, resample, standard_grid
from catnet.errors import UserError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")
AIR = -300  # in HU, below fat; an MR has no such intensities
PLAIN_NAME = "plain"  # of the card that is made where none is given
PLAIN = "LAS"  # the orientation where no card names one
LARGEST = 4096  # of a card's size


@dataclass(frozen=True)
class Look:
    """What a scan looks like, before it is prepared.

    modality  CT or MR, guessed from the intensities
    spacing   mm along left-right, front-back and head-feet
    extent    mm that the scan covers along these
    content   hash of its voxels, however they are stored
    """

    modality: str
    spacing: tuple[float, float, float]
    extent: tuple[float, float, float]
    content: str


@dataclass(frozen=True)
class Prepared:
    """A scan on its card's grid: slices first, z-scored; `scan` is its own grid."""

    path: Path
    image: Volume
    grid: Grid
    scan: Grid
    look: Look
    label_like: bool = False  # few whole numbers, as a label has
    remarks: tuple[str, ...] = ()  # what was decided while reading, in sentences


@dataclass(frozen=True)
class Labelled:
    """A prepared support with its labels on the same grid, and all numbers of its label file.

    names    what the label itself calls them, where it does
    """

    source: Path
    prepared: Prepared
    label: LabelVolume
    numbers: tuple[int, ...]
    names: dict[int, str] = field(default_factory=dict)


def scan_name(path: Path) -> str:
    """The scan's name without the endings of its format."""
    name = path.name or path.resolve().name
    ending = next((end for end in ENDINGS if name.lower().endswith(end) and name != end), "")
    return name[: len(name) - len(ending)]


def prepare_scan(card: Card, path: Path) -> Prepared:
    """One scan, prepared; raises `UserError` where it cannot be read, or shows nothing."""
    return prepare_volume(card, read_volume(path), path=path)


def prepare_volume(card: Card, scan: ScanFile, *, path: Path) -> Prepared:
    """A scan that was read from `path`, prepared."""
    first, last = scan.voxels.min(), scan.voxels.max()
    if first == last:  # a card can do nothing about that
        raise UserError(f"{path}: every voxel is {first:g}; give a scan that shows something")
    voxels, grid = prepare_image(card, scan, path=path)
    image = np.ascontiguousarray(rearrange(voxels, "x y z -> z y x"))
    few = is_label_like(scan.voxels)
    return Prepared(path, image, grid, scan.grid, look_at(scan), few, scan.remarks)


def prepare_support(
    card: Card, image: Path, label: Path, *, resample_labels: bool = False
) -> Labelled:
    """An image with its label, prepared; raises `UserError` where they do not fit each other.

    `resample_labels` takes a label that does not lie on its image's grid.
    """
    scan = read_volume(image)
    truth, names = read_numbers(label, scan=scan)
    remarks = scan.remarks + truth.remarks
    try:
        check_pair(scan, truth, image=image, label=label, option="--resample-labels")
    except UserError:
        if not resample_labels:
            raise
        remarks += (f"{label}: on a grid of its own, resampled by nearest neighbor",)
    numbers = whole_numbers(truth.voxels, path=label)
    prepared = prepare_volume(card, replace(scan, remarks=remarks), path=image)
    labels = resample(numbers, truth.grid, prepared.grid, order=0)
    shown = np.unique(numbers)
    return Labelled(
        label,
        prepared,
        np.ascontiguousarray(rearrange(labels, "x y z -> z y x")),
        tuple(int(number) for number in shown[shown > 0]),
        names,
    )


def whole_numbers(voxels: Array, *, path: Path) -> Array:
    """A label as uint16; raises `UserError` for one that is empty or holds no label numbers."""
    found = np.unique(voxels)
    if np.abs(found - np.rint(found)).max() > 1e-3 or found[0] < 0 or found[-1] > 65535:
        raise UserError(
            f"{path}: holds {found[0]:g} to {found[-1]:g}, which are not all label numbers; give a "
            "volume of whole numbers from 0"
        )
    if not np.rint(found).any():
        raise UserError(f"{path}: the label is empty; give one that shows an organ")
    return np.rint(voxels).astype(np.uint16)


def look_at(scan: ScanFile) -> Look:
    """What a scan looks like."""
    standard = standard_grid(scan.grid, orientation=PLAIN, spacing=(None, None, None))
    return Look(
        "CT" if np.mean(scan.voxels[::2, ::2, ::2] < AIR) > 0.01 else "MR",
        standard.spacing,
        tuple(n * mm for n, mm in zip(standard.shape, standard.spacing, strict=True)),
        content_hash(scan),
    )


def content_hash(scan: ScanFile) -> str:
    """SHA-256 of a scan's voxels, whatever the order of its axes and its type of numbers."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(scan.grid.affine), nib.orientations.axcodes2ornt(PLAIN)
    )
    turned = nib.orientations.apply_orientation(scan.voxels, turn)
    total = hashlib.sha256(str(turned.shape).encode())
    with np.errstate(over="ignore"):
        for z in range(turned.shape[2]):
            total.update(np.asarray(turned[..., z], np.float32).tobytes())
    return total.hexdigest()


def plain_card(supports: Sequence[tuple[Path, Path]]) -> Card:
    """How to prepare scans where no card says it: as the first support is.

    Its own spacing, its whole plane, all intensities up to percentile 99.5; `copy` looks at none.
    """
    image, label = supports[0]
    scan = read_volume(image)
    truth, _ = read_numbers(label, scan=scan)
    numbers = np.unique(whole_numbers(truth.voxels, path=label))
    standard = standard_grid(scan.grid, orientation=PLAIN, spacing=(None, None, None))
    size = tuple(32 * -(-max(32, n) // 32) for n in standard.shape[:2])
    if max(size) > LARGEST or not all(0.01 <= mm < 1000 for mm in standard.spacing):
        raise UserError(
            f"{image}: {standard.shape} voxels of {standard.spacing} mm need a card; give --card"
        )
    return Card(
        name=PLAIN_NAME,
        title="As the first support",
        source="the scans given",
        license="that of the scans given",
        citation="none",
        modality=look_at(scan).modality,
        image="{case}.nii.gz",
        label="{case}_label.nii.gz",
        orientation=PLAIN,
        spacing=standard.spacing,
        clip={"percentiles": (0, 99.5)},
        size=size,
        organs={f"label {number}": int(number) for number in numbers if number},
        supervoxels=SupervoxelSettings(min_size=1),
        folds=2,
    )
