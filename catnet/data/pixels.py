"""The pixels of DICOM slices, in the units of their headers: u = slope * stored + intercept.

DICOM PS3.3, C.11.1 (Modality LUT).
"""

import struct
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
import pydicom
import SimpleITK
from einops import rearrange
from jaxtyping import Shaped
from numpy import ndarray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException

from catnet.data.volume import Array
from catnet.errors import UserError

UNREADABLE = (
    AttributeError,
    BytesLengthException,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    struct.error,
    TypeError,
    ValueError,
)


def read_pixels(paths: Sequence[Path], first: Dataset) -> Array:
    """Slices of one size as a volume (column, row, slice): int16 where that holds them all.

    Nothing is reserved before a slice has shown that it holds what its header claims.
    """
    size, volume = (int(first.Rows), int(first.Columns)), np.empty(0, dtype=np.int16)
    for number, path in enumerate(paths):
        pixels = read_slice(path, like=first)
        if pixels.shape != size:
            raise UserError(f"{path}: its pixels are {pixels.shape}, its header says otherwise")
        if not number:
            volume = np.empty((len(paths), *size), dtype=np.int16)
        if pixels.dtype.kind == "f" and volume.dtype.kind != "f":
            volume = volume.astype(np.float32)
        elif volume.dtype == np.int16 and not fits(pixels):
            volume = volume.astype(np.int32)
        volume[number] = pixels
    return rearrange(volume, "slice row column -> column row slice")


def fits(pixels: Shaped[ndarray, "row column"]) -> bool:
    """Whether 16 bits with a sign hold them."""
    limits = np.iinfo(np.int16)
    return bool(limits.min <= pixels.min() and pixels.max() <= limits.max)


def has_rescale(header: Dataset) -> bool:
    """Whether a header says how stored values become units."""
    return header.get("RescaleSlope") is not None or header.get("RescaleIntercept") is not None


def read_slice(path: Path, *, like: Dataset) -> Shaped[ndarray, "row column"]:
    """One slice in its units: whole numbers where slope and intercept are such.

    Raises `UserError` where the pixels cannot be read, for a slope or intercept that is none, and
    for another rescaling than that of `like`, the first slice's header.
    """
    try:
        data = pydicom.dcmread(path)
        slope, intercept = rescale(path, data)
        check_rescale(path, data, like=like)
        if data.file_meta.TransferSyntaxUID.is_compressed:
            return decompress(path, data)
        stored = data.pixel_array
    except UNREADABLE as error:
        why = shorten(str(error), 160)
        raise UserError(
            f"{path}: its pixels cannot be read ({why}); get it again, or decompress the series, "
            "such as with gdcmconv --raw"
        ) from None
    return in_units(stored, slope=slope, intercept=intercept)


def decompress(path: Path, data: Dataset) -> Shaped[ndarray, "row column"]:
    """A compressed slice in its units: by pydicom, and by ITK where that knows no way.

    ITK also reads lossless JPEG, which archives use most; it rescales by itself.
    """
    slope, intercept = rescale(path, data)
    try:
        return in_units(data.pixel_array, slope=slope, intercept=intercept)
    except (NotImplementedError, RuntimeError):
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        found = SimpleITK.GetArrayFromImage(reader.Execute())[0]
        return found.astype(np.int32 if found.dtype.kind in "iu" else np.float32)


def in_units(
    stored: Shaped[ndarray, "row column"], *, slope: float, intercept: float
) -> Shaped[ndarray, "row column"]:
    """Stored values as slope and intercept mean them; whole where both are, and 32 bits do."""
    most = abs(slope) * 2.0 ** (8 * stored.dtype.itemsize) + abs(intercept)
    if slope.is_integer() and intercept.is_integer() and most < np.iinfo(np.int32).max:
        return stored.astype(np.int32) * int(slope) + int(intercept)
    return stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def check_rescale(path: Path, header: Dataset, *, like: Dataset) -> None:
    """Raise `UserError` where a slice's values mean other units than those of the first one.

    MR and PET have a slope for every slice; the Hounsfield units of a CT have one for all.
    """
    if has_rescale(header) != has_rescale(like):
        raise UserError(
            f"{path}: only some slices of its series have a rescale slope; get the series again"
        )
    here, there = rescale(path, header), rescale(path, like)
    if header.get("Modality") == "CT" and not np.allclose(here, there, rtol=1e-6):
        raise UserError(
            f"{path}: its rescale slope and intercept are {here[0]:g} and {here[1]:g}, those of "
            f"other slices {there[0]:g} and {there[1]:g}; get the series again"
        )


def rescale(path: Path, header: Dataset) -> tuple[float, float]:
    """Slope and intercept, 1 and 0 where none are given; raises `UserError` for impossible ones."""
    found = []
    for name, usual in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        value = header.get(name)
        found.append(usual if value is None else float(value))
    if not np.isfinite(found).all() or not 0 < found[0] < 1e6 or abs(found[1]) > 1e8:
        raise UserError(
            f"{path}: rescale slope {found[0]:g} and intercept {found[1]:g} give no intensities; "
            "get the series again"
        )
    return found[0], found[1]
