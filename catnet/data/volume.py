"""Volumes on grids: reading, resampling in one step from any grid to any other, writing.

`read_volume` is the one door for scans of every format: NIfTI is read here, the others in files of
their own.

A grid is a shape and an affine that maps voxel indices (x, y, z) to world millimeters (RAS+), as in
NIfTI. Only axis order, direction, spacing and place ever change; a volume that was scanned
obliquely stays oblique.
"""

import math
import os
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Shaped
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy import ndarray
from scipy import ndimage

from catnet.arrays import Affine
from catnet.data.nifti_checks import check_format, check_header
from catnet.data.zoom import zoom
from catnet.errors import UserError, writing

Array = Shaped[ndarray, "x y z"]
Moved = Shaped[ndarray, "i j k"]  # on another grid
BROKEN = (
    AttributeError,
    ImageFileError,
    HeaderDataError,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
)
MOST_VOXELS = 2**31  # of a volume; far above any scanner's, far below what memory is for
SURPLUS = 1 << 26  # bytes that a file may hold beside its voxels: extensions, another program's


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie."""

    shape: tuple[int, int, int]
    affine: Affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimeters between voxels along x, y and z."""
        return tuple(float(mm) for mm in nib.affines.voxel_sizes(self.affine))

    def moved(self, *, start: tuple[int, int, int], shape: tuple[int, int, int]) -> "Grid":
        """The grid whose first voxel is at index `start` of this one."""
        affine = self.affine.copy()
        affine[:3, 3] = nib.affines.apply_affine(self.affine, start)
        return Grid(shape, affine)


@dataclass(frozen=True)
class ScanFile:
    """A volume as it is in its file, or in its folder of DICOM slices."""

    voxels: Array
    grid: Grid
    files: tuple[Path, ...] = ()  # of a DICOM series, one a slice, in the order of the third axis
    remarks: tuple[str, ...] = ()  # what was decided while reading, in sentences
    modality: str = ""  # as DICOM says it
    frame: str = ""  # DICOM's frame of reference, where all slices share one


def read_volume(path: Path) -> ScanFile:
    """A 3D scan, every voxel finite; raises `UserError` for anything else.

    `path` is a NIfTI, NRRD, MHA or MHD file, or the folder of a DICOM series.
    """
    if path.is_dir():
        from catnet.data.dicom import read_series  # late: what reads NIfTI waits for no other

        return check_scan(path, read_series(path))
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; check the path")
    if path.suffix.lower() in {".nrrd", ".nhdr", ".mha", ".mhd"}:
        from catnet.data.itk import read_itk

        return check_scan(path, read_itk(path))
    if path.suffix.lower() in {".dcm", ".ima"}:
        raise UserError(
            f"{path}: is one DICOM file and no scan; give the folder of its series, or a DICOM SEG "
            "in the place of a label"
        )
    return check_scan(path, read_nifti(path))


def read_nifti(path: Path) -> ScanFile:
    """A NIfTI file as it is; raises `UserError` where it is none, or claims more than it holds."""
    try:
        image = nib.load(path)
        check_format(path, image)
        check_length(path, image)
        check_kind(path, image.get_data_dtype())  # before a slope is to scale it
        voxels = np.asanyarray(image.dataobj)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the folder and the card's pattern") from None
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable NIfTI file ({why}); get it again") from None
    except MemoryError:
        raise UserError(f"{path}: exceeds the memory; get it again, or crop the scan") from None
    if voxels.ndim == 4 and voxels.shape[3] == 1:
        voxels = voxels[..., 0]
    check_voxels(path, voxels)
    remarks = check_header(path, image)
    grid = Grid(voxels.shape, np.asarray(image.affine, dtype=np.float64))
    return ScanFile(voxels, grid, remarks=remarks)


def check_voxels(path: Path, voxels: ndarray) -> None:
    """Raise `UserError` for anything but a volume of real numbers."""
    if voxels.ndim != 3 or voxels.size == 0:
        raise UserError(f"{path}: has {voxels.ndim} axes, {voxels.shape}; give one 3D volume")
    check_kind(path, voxels.dtype)


def check_kind(path: Path, dtype: np.dtype) -> None:
    """Raise `UserError` for colors and complex numbers."""
    if not np.issubdtype(dtype, np.number) or np.issubdtype(dtype, np.complexfloating):
        raise UserError(f"{path}: voxels are {dtype}; give a volume of real numbers")


def check_scan(path: Path, scan: ScanFile) -> ScanFile:
    """`scan`; raises `UserError` for a voxel that is no number, or a grid that is no place."""
    voxels, affine = scan.voxels, scan.grid.affine
    check_voxels(path, voxels)
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        count = int((~np.isfinite(voxels)).sum())
        raise UserError(f"{path}: {count} voxels are NaN or infinite; replace them by numbers")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{path}: its affine maps voxels to no place; write a valid one")
    if np.isnan(nib.io_orientation(affine)).any():
        raise UserError(f"{path}: its affine gives an axis no direction; write a valid one")
    return scan


def check_length(path: Path, image: SpatialImage) -> None:
    """Raise `ValueError` where a header claims more voxels than its file holds, or far fewer.

    The reader would reserve the claimed memory first, and never looks at gzip's checksum. Only
    NIfTI says how it lies; nibabel reads other formats as well.
    """
    if not isinstance(image, nib.Nifti1Pair):
        raise ValueError(f"it is {type(image).__name__}")
    if math.prod(image.shape) > MOST_VOXELS:
        raise ValueError(f"its header claims {image.shape} voxels, more than any scanner makes")
    claimed, held = math.prod(image.shape) * image.get_data_dtype().itemsize, 0
    with image.file_map["image"].get_prepare_fileobj("rb") as file:
        for block in iter(partial(file.read, 1 << 20), b""):
            held += len(block)
            if held > claimed + SURPLUS:
                raise ValueError("it holds far more than its header claims")
    if claimed > held:
        raise ValueError(f"its header claims {image.shape} voxels, the file holds fewer")


def standard_grid(
    grid: Grid, *, orientation: str, spacing: tuple[float | None, float | None, float | None]
) -> Grid:
    """`grid` with its axes in the order and direction of `orientation`, at `spacing` (mm)."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(grid.affine), nib.orientations.axcodes2ornt(orientation)
    )
    affine = grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape)
    shape = tuple(int(grid.shape[axis]) for axis in np.argsort(turn[:, 0]))
    own = nib.affines.voxel_sizes(affine)
    wanted = np.array([mm if mm is not None else own[i] for i, mm in enumerate(spacing)])
    if np.allclose(wanted, own, rtol=1e-3):  # rounded headers are no reason to interpolate
        return Grid(shape, affine)
    scaled = tuple(max(1, round(n * a / b)) for n, a, b in zip(shape, own, wanted, strict=True))
    ratio = wanted / own
    start = ((np.array(shape) - 1) - (np.array(scaled) - 1) * ratio) / 2  # the middle stays
    corner = nib.affines.apply_affine(affine, start)
    return Grid(scaled, nib.affines.from_matvec(affine[:3, :3] * ratio, corner))


def resample(
    voxels: Array,
    source: Grid,
    target: Grid,
    *,
    order: int,
    fill: float = 0.0,
    kind: type | None = None,
) -> Moved:
    """`voxels` on `source`, interpolated on `target`; `fill` outside of the source.

    The result has the type of `voxels`, or `kind`, which spares a copy of the whole source.
    `order` 0 is nearest neighbor, for labels; 1 is linear, for intensities. Axes are turned first,
    without interpolation, so that what is left is a scaling along each axis.
    """
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(source.affine), nib.io_orientation(target.affine)
    )
    turned = nib.orientations.apply_orientation(voxels, turn)
    affine = source.affine @ nib.orientations.inv_ornt_aff(turn, source.shape)
    matrix = np.linalg.inv(affine) @ target.affine
    linear, offset = matrix[:3, :3], matrix[:3, 3]
    if np.allclose(linear, np.eye(3), atol=1e-7) and np.allclose(
        offset, np.rint(offset), atol=1e-5
    ):
        start = tuple(int(n) for n in np.rint(offset))
        return cut(turned, start=start, shape=target.shape, fill=fill, kind=kind)
    scaling = np.diag(linear)
    if np.allclose(linear, np.diag(scaling), atol=1e-4):
        return zoom(
            turned,
            scale=scaling,
            offset=offset,
            shape=target.shape,
            order=order,
            fill=fill,
            kind=kind or voxels.dtype,
        )
    return ndimage.affine_transform(
        turned,
        linear,
        offset=offset,
        output_shape=target.shape,
        output=kind or voxels.dtype,
        order=order,
        mode="grid-constant",
        cval=fill,
        prefilter=False,
    )


def cut(
    voxels: Array,
    *,
    start: tuple[int, int, int],
    shape: tuple[int, int, int],
    fill: float,
    kind: type | None,
) -> Moved:
    """The box of `voxels` from index `start` on, `fill` where it leaves them: nothing between."""
    found = np.full(shape, fill, dtype=kind or voxels.dtype, order="F")
    source, target = [], []
    for first, size, held in zip(start, shape, voxels.shape, strict=True):
        inside = slice(max(0, first), max(0, min(held, first + size)))
        source.append(inside)
        target.append(slice(inside.start - first, max(inside.start, inside.stop) - first))
    found[tuple(target)] = voxels[tuple(source)]
    return found


def centered(grid: Grid, *, size: tuple[int, int], center: tuple[float, float]) -> Grid:
    """`grid` cut or padded to `size` in the plane, around index `center`; all slices are kept."""
    start = [round(c - (n - 1) / 2) for c, n in zip(center, size, strict=True)]
    return grid.moved(start=(*start, 0), shape=(*size, grid.shape[2]))


def write_volume(path: Path, voxels: Array, affine: Affine) -> None:
    """Write NIfTI under a temporary name, then rename it: there is never half a file."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(voxels, affine), temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
