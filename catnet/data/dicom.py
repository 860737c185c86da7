"""A DICOM series as a volume: its slices sorted by place, in the units of its header, in RAS+.

With r and c the directions of a row and of a column (ImageOrientationPatient), p_c and p_r the
distance of columns and of rows (PixelSpacing, second and first), o the first slice's position and s
the step to the next one (ImagePositionPatient), all LPS, voxel (i, j, k) lies at

    diag(-1, -1, 1) (o + i p_c r + j p_r c + k s)

DICOM PS3.3, C.7.6.2. A step that is not normal to the slices (a tilted gantry) is kept as it is.
"""

import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from catnet.arrays import Affine
from catnet.data.pixels import read_pixels
from catnet.data.volume import Grid, ScanFile
from catnet.errors import UserError

NEEDED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
COUNTS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
WORDS = ("PatientID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
WORDS += ("EchoTime", "ImageType", "PhotometricInterpretation", "RescaleSlope")
WORDS += ("RescaleIntercept",)
NO_SCAN = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG"}
BROKEN = (
    *(OSError, EOFError, ValueError, AttributeError, LookupError, TypeError, struct.error),
    *(NotImplementedError, OverflowError, RecursionError, zlib.error, BytesLengthException),
)
FARTHEST = 1e6  # mm of a place, or between two pixels
ROUNDED = 0.02  # of the step, and in mm: what headers are rounded to
CONVERT = "convert it to NIfTI, such as with dcm2niix"


class Slice(NamedTuple):
    """A DICOM file and its header, without the pixels."""

    path: Path
    header: Dataset


def read_series(folder: Path) -> ScanFile:
    """The one scan among the DICOM files in `folder`, whatever their names and order.

    Of several series the largest with at least two slices is read, and named in the remarks;
    localizers never are. Raises `UserError` for several that are equally large, a series that is
    no stack of parallel slices, and for missing slices.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of values that are not quite DICOM
        return read_stack(folder, group_series(read_headers(folder)))


def read_stack(folder: Path, series: list[list[Slice]]) -> ScanFile:
    """The largest of several series as a volume."""
    found = choose(folder, series)
    check_alike(folder, found)
    found, step = sort_slices(folder, found)
    first = found[0].header
    remarks = ()
    if len(series) > 1:
        remarks = (f"{folder}: of {len(series)} series {describe(found)} is read",)
    voxels = read_pixels([part.path for part in found], first)
    return ScanFile(
        voxels,
        Grid(voxels.shape, series_affine(first, step)),
        files=tuple(part.path for part in found),
        remarks=remarks,
        modality=str(first.get("Modality", "")),
    )


def read_headers(folder: Path) -> list[Slice]:
    """Every image of a scan in and below `folder`; raises `UserError` where there is none."""
    found = []
    for path in sorted(folder.rglob("[!.]*")):
        if not path.is_file() or path.name == "DICOMDIR":
            continue
        header = read_header(path)
        if header is None or said(header, "Modality") in NO_SCAN:
            continue
        if "Rows" in header and "Columns" in header:
            found.append(Slice(path, header))
        elif is_image(header):
            raise UserError(f"{path}: is cut off, it has no rows of pixels; get it again")
    if not found:
        raise UserError(f"{folder}: holds no DICOM image; give the folder of a series' slices")
    return found


def read_header(path: Path) -> Dataset | None:
    """A DICOM file without its pixels; nothing for a file of another kind.

    Raises `UserError` for one that calls itself DICOM and is not, or whose values are none.
    """
    try:
        refuse_deflated(path)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for name in COUNTS:
            int(header.get(name) or 1)  # pydicom looks at a value when it is asked for
        for name in (*WORDS, *NEEDED):
            header.get(name)
        return header
    except InvalidDicomError:
        if path.suffix.lower() not in {".dcm", ".ima"}:
            return None
        raise UserError(f"{path}: is called DICOM and is not; get it again, or remove it") from None
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable DICOM file ({why}); get it again") from None


def is_image(header: Dataset) -> bool:
    """Whether a file calls itself an image, or nothing at all."""
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return not kind or "Image Storage" in UID(kind).name


def refuse_deflated(path: Path) -> None:
    """Raise `UserError` for a file packed as a whole: a small one may fill any memory."""
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise UserError(f"{path}: is deflated; {CONVERT}")


def said(header: Dataset, name: str) -> str:
    """A value as text, empty where there is none."""
    return str(header.get(name, ""))


def group_series(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The files of every series.

    Where anonymization gave each slice a series of its own (the MR of CHAOS is read so), those that
    agree in number, size and direction are one.
    """
    series = defaultdict(list)
    for part in slices:
        series[said(part.header, "SeriesInstanceUID")].append(part)
    if len(series) == len(slices) > 1:
        series = defaultdict(list)
        for part in slices:
            series[likeness(part.header)].append(part)
    return list(series.values())


def likeness(header: Dataset) -> tuple:
    """What slices of one series agree in, without its identifier."""
    turn = np.round(numbers(header, "ImageOrientationPatient"), 3)
    names = ("SeriesNumber", "SeriesDescription", "EchoTime", "Rows", "Columns")
    return (*(said(header, name) for name in names), *turn.tolist())


def choose(folder: Path, series: list[list[Slice]]) -> list[Slice]:
    """The largest series; raises `UserError` where none is a stack, or where two are as large."""
    stacks = [found for found in series if len(found) > 1 and not is_localizer(found[0].header)]
    stacks.sort(key=volume_size, reverse=True)
    if not stacks:
        check_kind(series[0][0])
        raise UserError(
            f"{folder}: its {len(series)} series have a single slice each, or are localizers; "
            "give the folder of a scan"
        )
    if len(stacks) > 1 and volume_size(stacks[0]) == volume_size(stacks[1]):
        raise UserError(
            f"{folder}: mixes two series of one size, {describe(stacks[0])} and "
            f"{describe(stacks[1])}; put each into a folder of its own"
        )
    return stacks[0]


def is_localizer(header: Dataset) -> bool:
    """Whether a slice was taken to plan the others."""
    return "LOCALIZER" in said(header, "ImageType").upper()


def volume_size(found: list[Slice]) -> int:
    """Voxels of a series."""
    header = found[0].header
    return len(found) * int(header.Rows or 0) * int(header.Columns or 0)


def describe(found: list[Slice]) -> str:
    """A series in words, on one line."""
    header = found[0].header
    words = " ".join(said(header, "SeriesDescription").split())
    uid = header.get("SeriesInstanceUID", "without UID")
    return f"{uid} ({f'{words}, ' if words else ''}{len(found)} slices)"


def check_kind(part: Slice) -> None:
    """Raise `UserError` for several frames or colors, and for a slice without a place."""
    path, header = part
    if int(header.get("NumberOfFrames") or 1) > 1:
        frames = header.NumberOfFrames
        raise UserError(f"{path}: holds {frames} frames (enhanced DICOM); {CONVERT}")
    if not int(header.Rows or 0) > 0 or not int(header.get("Columns") or 0) > 0:
        raise UserError(f"{path}: has no rows or no columns of pixels; get it again")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        kind = header.get("PhotometricInterpretation", "color")
        raise UserError(f"{path}: its pixels are {kind}, not intensities; give the original series")
    for name, count in NEEDED.items():
        values = numbers(header, name)
        if len(values) != count or not (np.abs(values) < FARTHEST).all():
            raise UserError(
                f"{path}: does not say where it lies ({name} is missing, or no {count} numbers); "
                f"{CONVERT}"
            )
    turn = rearrange(numbers(header, "ImageOrientationPatient"), "(way world) -> way world", way=2)
    if np.abs(np.linalg.norm(turn, axis=1) - 1).max() > 0.05:
        raise UserError(
            f"{path}: does not say where it lies (ImageOrientationPatient is no two directions); "
            f"{CONVERT}"
        )
    if numbers(header, "PixelSpacing").min() <= 0:
        raise UserError(
            f"{path}: its pixels are {header.PixelSpacing} mm apart, which is no distance; get the "
            "series again"
        )


def check_alike(folder: Path, found: list[Slice]) -> None:
    """Raise `UserError` where the slices of a series differ in patient, size or direction."""
    first = found[0].header
    for part in found:
        check_kind(part)
        for name in ("PatientID", "Rows", "Columns", "Modality"):
            here, there = part.header.get(name), first.get(name)
            if here != there:
                raise UserError(
                    f"{folder}: mixes slices whose {name} differs, {there!r} in "
                    f"{found[0].path.name} and {here!r} in {part.path.name}; sort them by series"
                )
        for name in ("ImageOrientationPatient", "PixelSpacing"):
            if not np.allclose(numbers(part.header, name), numbers(first, name), atol=1e-3):
                raise UserError(
                    f"{folder}: {name} differs between {found[0].path.name} and {part.path.name}; "
                    "sort the slices by series"
                )


def sort_slices(folder: Path, found: list[Slice]) -> tuple[list[Slice], Float[ndarray, "3"]]:
    """The slices from the lowest place along their normal, and the step between two of them.

    Raises `UserError` where two share a place, one is missing, or the steps differ.
    """
    along, down = np.split(numbers(found[0].header, "ImageOrientationPatient"), 2)
    places = np.array([numbers(part.header, "ImagePositionPatient") for part in found])
    heights = places @ np.cross(along, down)
    order = np.argsort(heights, kind="stable")
    found, heights, places = [found[index] for index in order], heights[order], places[order]
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    narrow, wide = int(np.argmin(gaps)), int(np.argmax(gaps))
    if gaps[narrow] < 1e-3:
        names = f"{found[narrow].path.name} and {found[narrow + 1].path.name}"
        raise UserError(
            f"{folder}: {names} show one place, so several scans are mixed (echoes, time points, "
            "copies); keep one of them in the folder"
        )
    missing = round(gaps[wide] / usual) - 1
    names = f"{found[wide].path.name} and {found[wide + 1].path.name}"
    if missing >= 1 and abs(gaps[wide] / usual - missing - 1) < 0.1:
        raise UserError(
            f"{folder}: {missing} slices are missing between {names} (a gap of {gaps[wide]:.4g} "
            f"mm, {usual:.4g} elsewhere); get the whole series"
        )
    if np.abs(gaps - usual).max() > ROUNDED * max(1.0, usual):
        raise UserError(
            f"{folder}: its slices are {gaps.min():.4g} to {gaps.max():.4g} mm apart, the widest "
            f"gap between {names}; resample the scan to even steps"
        )
    return found, (places[-1] - places[0]) / (len(found) - 1)


def series_affine(first: Dataset, step: Float[ndarray, "3"]) -> Affine:
    """Voxel indices (column, row, slice) to world millimeters, RAS+."""
    rows, columns = numbers(first, "PixelSpacing")
    along, down = np.split(numbers(first, "ImageOrientationPatient"), 2)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along * columns, down * rows, step], axis=1)
    affine[:3, 3] = numbers(first, "ImagePositionPatient")
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def numbers(header: Dataset, name: str) -> Float[ndarray, " n"]:
    """A decimal string of several values, as numbers; none where it holds anything else."""
    try:
        return np.array([float(value) for value in header.get(name) or ()], dtype=np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)
