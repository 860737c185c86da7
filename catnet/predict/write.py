"""Volumes on the query's own grid: its affine, codes and units are kept, its voxels replaced."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float32, Integer
from nibabel.nifti1 import Nifti1Header
from numpy import ndarray

from catnet.data.volume import Grid
from catnet.errors import writing

SCANNER = 1  # the code of coordinates that the scanner gave


def query_header(path: Path) -> Nifti1Header | None:
    """The header of a NIfTI query; None where the query has another format."""
    if path.is_dir() or not path.name.lower().endswith((".nii", ".nii.gz")):
        return None
    header = nib.load(path).header
    return header.copy() if isinstance(header, Nifti1Header) else None


def image_on(
    grid: Grid, header: Nifti1Header | None, voxels: ndarray, *, intent: str
) -> nib.Nifti1Image:
    """`voxels` as an image that lies where the query lies, without its scaling or display range."""
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image = kind(voxels, grid.affine, header)
    if header is None:
        image.set_qform(grid.affine, SCANNER)
        image.set_sform(grid.affine, SCANNER)
        image.header.set_xyzt_units("mm")
    image.set_data_dtype(voxels.dtype)
    image.header.set_slope_inter(1, 0)
    image.header["cal_min"] = image.header["cal_max"] = 0
    image.header.set_intent(intent)
    return image


def label_type(numbers: list[int]) -> type[np.integer]:
    """The smallest integer that every viewer reads and that holds the numbers."""
    fitting = (kind for kind in (np.uint8, np.int16) if max(numbers) <= np.iinfo(kind).max)
    return next(fitting, np.uint16)


def write_labels(
    path: Path, labels: Integer[ndarray, "x y z"], grid: Grid, header: Nifti1Header | None
) -> None:
    """Write a label volume: whole, or not at all."""
    save(path, image_on(grid, header, labels, intent="label"))


def save(path: Path, image: nib.Nifti1Image) -> None:
    """Write beside the place, then move there."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def probability_file(
    path: Path, grid: Grid, header: Nifti1Header | None
) -> Iterator[Float32[ndarray, "x y z"]]:
    """Zeros on disk to be filled slice by slice; they become a NIfTI file when the block ends."""
    raw = path.with_name(f".{os.getpid()}-{path.name}.raw")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            reserve(raw, size=4 * math.prod(grid.shape))
            voxels = np.memmap(raw, np.float32, mode="r+", shape=grid.shape, order="F")
            yield voxels
            save(path, image_on(grid, header, voxels, intent="estimate"))
        finally:
            raw.unlink(missing_ok=True)


def reserve(path: Path, *, size: int) -> None:
    """A file of zeros whose place on the disk is taken; raises `OSError` where there is none.

    To fill a mapped file on a full disk would end the process without a word.
    """
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
