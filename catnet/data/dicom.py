"""A DICOM series as a volume: its slices sorted by place, in the units of its header, in RAS+.

With r and c the directions of a row and of a column (ImageOrientationPatient), p_c and p_r the
distance of columns and of rows (PixelSpacing, second and first), o the first slice's position and s
the step to the next one (ImagePositionPatient), all LPS, voxel (i, j, k) lies at

    diag(-1, -1, 1) (o + i p_c r + j p_r c + k s)

DICOM PS3.3, C.7.6.2. A step that is not normal to the slices (a tilted gantry) is kept as it is.
"""

import math
import struct
import warnings
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from jaxtyping import Float
from numpy import ndarray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from catnet.arrays import Affine
from catnet.data.dicom_checks import (
    CONVERT,
    Slice,
    check_alike,
    check_kind,
    check_steps,
    frames,
    numbers,
    oddities,
    said,
)
from catnet.data.pixels import read_pixels
from catnet.data.volume import Grid, ScanFile
from catnet.errors import UserError

COUNTS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel")
WORDS = ("PatientID", "Modality", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription")
WORDS += ("EchoTime", "ImageType", "PhotometricInterpretation", "FrameOfReferenceUID")
WORDS += ("RescaleSlope", "RescaleIntercept")
PLACES = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
NO_SCAN = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "PR", "SR", "KO", "REG"}
BROKEN = (
    *(OSError, EOFError, ValueError, AttributeError, LookupError, TypeError, struct.error),
    *(NotImplementedError, OverflowError, RecursionError, zlib.error, BytesLengthException),
)
ALIKE = 0.5  # of the size of a slice's file: what a file that lost its mark may differ


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
    remarks = tuple(oddities(folder, found, float(np.linalg.norm(step))))
    if len(series) > 1:
        remarks = (f"{folder}: of {len(series)} series {describe(found)} is read", *remarks)
    frame = {said(part.header, "FrameOfReferenceUID") for part in found}
    voxels = read_pixels([part.path for part in found], first)
    return ScanFile(
        voxels,
        Grid(voxels.shape, series_affine(first, step)),
        files=tuple(part.path for part in found),
        remarks=remarks,
        modality=said(first, "Modality"),
        frame=frame.pop() if len(frame) == 1 else "",
    )


def read_headers(folder: Path) -> list[Slice]:
    """Every image of a scan in and below `folder`; raises `UserError` where there is none."""
    found, strange = [], []
    for path in sorted(folder.rglob("[!.]*")):
        if not path.is_file() or path.name == "DICOMDIR":
            continue
        header = read_header(path)
        if header is None:
            strange.append(path)
        elif said(header, "Modality") in NO_SCAN:
            continue
        elif "Rows" in header and "Columns" in header:
            found.append(Slice(path, header))
        elif is_image(header):
            raise UserError(f"{path}: is cut off, it has no rows of pixels; get it again")
    if not found:
        raise UserError(f"{folder}: holds no DICOM image; give the folder of a series' slices")
    check_strange(found, strange)
    return found


def is_image(header: Dataset) -> bool:
    """Whether a file calls itself an image, or nothing at all."""
    kind = header.file_meta.get("MediaStorageSOPClassUID")
    return not kind or "Image Storage" in UID(str(kind)).name


def check_strange(found: list[Slice], strange: list[Path]) -> None:
    """Raise `UserError` for a file that lost its mark of DICOM: as large as slices, named alike."""
    size = float(np.median([part.path.stat().st_size for part in found]))
    endings = {part.path.suffix for part in found}
    for path in strange:
        alike = abs(path.stat().st_size - size) < ALIKE * size
        if alike and path.suffix in endings and {path.parent} <= {p.path.parent for p in found}:
            raise UserError(
                f"{path}: is no DICOM file, and lies among slices of its size; if it is one of "
                "them get it again, else move it away"
            )


def read_header(path: Path) -> Dataset | None:
    """A DICOM file without its pixels; nothing for a file of another kind.

    Raises `UserError` for one that calls itself DICOM and is not, or whose values are none.
    """
    try:
        refuse_deflated(path)
        header = pydicom.dcmread(path, stop_before_pixels=True)
        for name in COUNTS:
            int(header.get(name) or 1)  # pydicom looks at a value when it is asked for
        for name in (*WORDS, *PLACES):
            header.get(name)
        list(header.file_meta)  # asked for, too: all of them
        return header
    except InvalidDicomError:
        if path.suffix.lower() not in {".dcm", ".ima"}:
            return None
        raise UserError(f"{path}: is called DICOM and is not; get it again, or remove it") from None
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable DICOM file ({why}); get it again") from None


def refuse_deflated(path: Path) -> None:
    """Raise `UserError` for a file packed as a whole: a small one may fill any memory."""
    syntax = read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise UserError(f"{path}: is deflated; {CONVERT}")


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
    stacks = [one for one in series if len(one) > 1 or frames(one[0]) > 1]
    stacks = [one for one in stacks if not is_localizer(one[0].header)]
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
    counts = (int(found[0].header.get(name) or 0) for name in ("Rows", "Columns"))
    return sum(map(frames, found)) * math.prod(counts)


def describe(found: list[Slice]) -> str:
    """A series in words, on one line."""
    header = found[0].header
    words = " ".join(said(header, "SeriesDescription").split())
    uid = header.get("SeriesInstanceUID", "without UID")
    return f"{uid} ({f'{words}, ' if words else ''}{len(found)} slices)"


def sort_slices(folder: Path, found: list[Slice]) -> tuple[list[Slice], Float[ndarray, "3"]]:
    """The slices from the lowest place along their normal, and the step between two of them.

    Raises `UserError` where two share a place, one is missing, or the steps differ.
    """
    along, down = np.split(numbers(found[0].header, "ImageOrientationPatient"), 2)
    places = np.array([numbers(part.header, "ImagePositionPatient") for part in found])
    heights = places @ np.cross(along, down)
    order = np.argsort(heights, kind="stable")
    found, heights, places = [found[index] for index in order], heights[order], places[order]
    check_steps(folder, found, heights, places)
    return found, (places[-1] - places[0]) / (len(found) - 1)


def series_affine(first: Dataset, step: Float[ndarray, "3"]) -> Affine:
    """Voxel indices (column, row, slice) to world millimeters, RAS+."""
    rows, columns = numbers(first, "PixelSpacing")
    along, down = np.split(numbers(first, "ImageOrientationPatient"), 2)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([along * columns, down * rows, step], axis=1)
    affine[:3, 3] = numbers(first, "ImagePositionPatient")
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
