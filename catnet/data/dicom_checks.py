"""What DICOM slices must say, and agree in, to be one scan; what is odd about those that do."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from pydicom.dataset import Dataset

from catnet.errors import UserError

NEEDED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
FARTHEST = 1e6  # mm of a place, or between two pixels
ROUNDED = 0.02  # of the step, and in mm: what headers are rounded to
SQUARE = 0.02  # of directions: how far their length is from 1, their product from 0
STRAIGHT = 0.1  # of the step, and in mm: how far a slice may lie from the line of all
CONVERT = "convert it to NIfTI, such as with dcm2niix"


class Slice(NamedTuple):
    """A DICOM file and its header, without the pixels."""

    path: Path
    header: Dataset


def numbers(header: Dataset, name: str) -> Float[ndarray, " n"]:
    """A decimal string of one value or several, as numbers; none where it holds anything else."""
    values = header.get(name)
    try:
        found = [values] if isinstance(values, int | float | str) else values or ()
        return np.array([float(value) for value in found], dtype=np.float64)
    except (TypeError, ValueError):
        return np.zeros(0)


def said(header: Dataset, name: str) -> str:
    """A value as text, empty where there is none."""
    return str(header.get(name, ""))


def frames(part: Slice) -> int:
    """How many pictures a file holds."""
    return max(1, int(part.header.get("NumberOfFrames") or 1))


def check_kind(part: Slice) -> None:
    """Raise `UserError` for several frames or colors, and for a slice without a place."""
    path, header = part
    if frames(part) > 1:
        raise UserError(f"{path}: holds {frames(part)} frames (enhanced DICOM); {CONVERT}")
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
    check_plane(part)


def check_plane(part: Slice) -> None:
    """Raise `UserError` for directions at no right angle, and for pixels without a size."""
    path, header = part
    turn = rearrange(numbers(header, "ImageOrientationPatient"), "(way world) -> way world", way=2)
    if np.abs(turn @ turn.T - np.eye(2)).max() > SQUARE:
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


def check_steps(
    folder: Path, found: list[Slice], heights: Float[ndarray, " n"], places: Float[ndarray, "n 3"]
) -> None:
    """Raise `UserError` where two slices share a place, one is missing, or lies off the line."""
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
    line = np.linspace(places[0], places[-1], len(places))
    apart = np.linalg.norm(places - line, axis=1)
    if apart.max() > STRAIGHT * max(1.0, usual):
        raise UserError(
            f"{folder}: {found[int(apart.argmax())].path.name} lies {apart.max():.3g} mm beside "
            "the line of the other slices (ImagePositionPatient); get the series again, or "
            "resample the scan"
        )


def oddities(folder: Path, found: list[Slice], step: float) -> Iterator[str]:
    """Sentences where a sound stack, its slices `step` mm apart, does not look complete."""
    announced = numbers(found[0].header, "SpacingBetweenSlices")
    if len(announced) == 1 and announced[0] > 0 and abs(announced[0] - step) > 0.1 * step:
        yield (
            f"{folder}: its slices lie {step:.4g} mm apart, SpacingBetweenSlices says "
            f"{announced[0]:.4g} mm; slices may be missing"
        )
    counted = sorted(int(n) for part in found for n in numbers(part.header, "InstanceNumber")[:1])
    jumps = np.diff(counted)
    if len(counted) == len(found) > 2 and jumps.min() > 0 and jumps.max() > jumps.min():
        place = int(jumps.argmax())
        yield (
            f"{folder}: the numbers of its slices jump from {counted[place]} to "
            f"{counted[place + 1]} (InstanceNumber); slices may be missing"
        )
