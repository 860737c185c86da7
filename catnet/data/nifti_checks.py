"""What a NIfTI header says twice, or in other units than millimeters: refused or remarked on."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import nibabel as nib
import numpy as np
from jaxtyping import Float
from nibabel.analyze import AnalyzeImage
from nibabel.spatialimages import HeaderDataError, SpatialImage
from numpy import ndarray

from catnet.errors import UserError

UNIT, UNITS = 0b111, {1: "meters", 3: "micrometers"}  # bits of xyzt_units; 2 is mm, 0 unknown
APART = 1.0  # mm between two affines of one header that are worth a remark


def check_format(path: Path, image: SpatialImage) -> None:
    """Raise `UserError` for NIfTI's predecessor, which has no word for orientation."""
    if isinstance(image, AnalyzeImage) and not isinstance(image, nib.Nifti1Pair):
        raise UserError(
            f"{path}: is an Analyze file, which does not say how it lies; convert it to NIfTI, "
            "once you know its orientation"
        )


def check_header(path: Path, image: SpatialImage) -> tuple[str, ...]:
    """Remarks on what is odd; raises `UserError` where a header leaves open where voxels lie."""
    if not isinstance(image, nib.Nifti1Pair):
        return ()
    header = stored_header(image)
    check_units(path, header)
    check_codes(path, header)
    return (*scale_remarks(path, header), *place_remarks(path, image))


def stored_header(image: nib.Nifti1Pair) -> nib.Nifti1Header:
    """The header as it is in the file, before nibabel mends it."""
    kind = type(image.header)
    holder = image.file_map.get("header") or image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        return kind(file.read(kind.template_dtype.itemsize), check=False)


def check_units(path: Path, header: nib.Nifti1Header) -> None:
    """Raise `UserError` for lengths in anything but millimeters, and for an infinite slope."""
    unit = int(header["xyzt_units"]) & UNIT
    if unit in UNITS:
        raise UserError(
            f"{path}: its lengths are in {UNITS[unit]} (xyzt_units); write it in millimeters, or "
            "correct the unit"
        )
    if np.isinf(header["scl_slope"]) or np.isinf(header["scl_inter"]):
        raise UserError(f"{path}: its scl_slope or scl_inter is infinite; get it again")


def check_codes(path: Path, header: nib.Nifti1Header) -> None:
    """Raise `UserError` where no code says how it lies, or a voxel has no size."""
    if not header["qform_code"] and not header["sform_code"]:
        raise UserError(
            f"{path}: does not say how it lies (qform_code and sform_code are 0); write its affine "
            "with a code, once you know it"
        )
    sizes = header["pixdim"][1:4]
    if not header["sform_code"] and not (sizes > 0).all():
        raise UserError(
            f"{path}: its voxels are {' x '.join(f'{mm:g}' for mm in sizes)} mm (pixdim), which is "
            "no size; write the right ones"
        )


def scale_remarks(path: Path, header: nib.Nifti1Header) -> Iterator[str]:
    """Where a slope is no number, stored values are taken as they are."""
    if np.isnan(header["scl_slope"]) or np.isnan(header["scl_inter"]):
        yield f"{path}: its scl_slope or scl_inter is no number, and left out"


def place_remarks(path: Path, image: nib.Nifti1Pair) -> Iterator[str]:
    """Where qform and sform lie apart; raises `UserError` where they differ in direction."""
    try:
        qform, code = image.get_qform(coded=True)
        sform, other = image.get_sform(coded=True)
    except (HeaderDataError, ValueError):
        return
    if not code or not other or not np.isfinite([qform, sform]).all():
        return
    corners = np.array(list(product(*((0, n - 1) for n in image.shape[:3]))))
    apart = np.linalg.norm(moved(qform, corners) - moved(sform, corners), axis=1).max()
    ways = ["".join(map(str, nib.aff2axcodes(affine))) for affine in (qform, sform)]
    mirrored = np.linalg.det(qform[:3, :3]) * np.linalg.det(sform[:3, :3]) < 0
    if mirrored or (ways[0] != ways[1] and apart > APART):
        raise UserError(
            f"{path}: its qform ({ways[0]}) and sform ({ways[1]}) point different ways; write the "
            "right one into both"
        )
    if apart > APART:
        yield f"{path}: its qform and sform lie up to {apart:.3g} mm apart; the sform is taken"


def moved(affine: Float[ndarray, "4 4"], corners: ndarray) -> Float[ndarray, "n 3"]:
    """Voxel indices in the world."""
    return nib.affines.apply_affine(affine, corners)
