"""A label volume as DICOM Segmentation: one binary segment an organ, beside the query's slices.

DICOM's axes run to the patient's left, back and head (LPS), NIfTI's to the right, front and head.
With the cosines u (along a row) and v (down a column), spacing (s_r, s_c) and position p of a slice

    world_LPS(row, column) = p + column s_c u + row s_r v
"""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Float, Integer
from nibabel.affines import apply_affine
from numpy import ndarray

from catnet.arrays import Affine
from catnet.data.sides import side_of
from catnet.data.volume import Array, Grid, resample
from catnet.errors import UserError
from catnet.files import write_bytes

Vector = Float[ndarray, "3"]
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
SAME_PLACE = 0.1  # mm
PLACED = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SeriesInstanceUID")


def read_series(folder: Path, grid: Grid) -> list[Any]:
    """The DICOM slices in `folder` that lie on `grid`, in the order of their places, no pixels.

    Other series and localisers may lie beside them. Raises `UserError` where no series fills the
    grid.
    """
    series: dict[str, list[Any]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        slice_ = read_slice(path)
        if slice_ is not None and lies_on(slice_, grid):
            series.setdefault(str(slice_.SeriesInstanceUID), []).append(slice_)
    for slices in series.values():
        if len(slices) * slices[0].Rows * slices[0].Columns == np.prod(grid.shape):
            return sorted(slices, key=depth)
    raise UserError(
        f"{folder}: no series of single-frame slices fills the volume that was read from it; a "
        "segmentation must name every slice, so give all of them, or leave --dicom-seg out"
    )


def read_slice(path: Path) -> Any | None:
    """The header of a slice that has a place in the patient; None for any other file."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        slice_ = pydicom.dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError, ValueError, AttributeError, KeyError):
        return None
    placed = all(slice_.get(name) is not None for name in PLACED)
    return slice_ if placed and "Rows" in slice_ and "NumberOfFrames" not in slice_ else None


def plane_affine(slice_: Any, step: Vector) -> Affine:
    """(column, row, number) of a stack that begins with this slice, to RAS+ mm."""
    cosines = np.array(slice_.ImageOrientationPatient, dtype=np.float64)
    between_rows, between_columns = map(float, slice_.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = cosines[:3] * between_columns
    affine[:3, 1] = cosines[3:] * between_rows
    affine[:3, 2] = step
    affine[:3, 3] = np.array(slice_.ImagePositionPatient, dtype=np.float64)
    return TO_RAS @ affine


def normal(slice_: Any) -> Vector:
    """The direction across the slice, in LPS."""
    cosines = np.array(slice_.ImageOrientationPatient, dtype=np.float64)
    return np.cross(cosines[:3], cosines[3:])


def depth(slice_: Any) -> float:
    """How far along its normal a slice lies, in mm."""
    return float(normal(slice_) @ np.array(slice_.ImagePositionPatient, dtype=np.float64))


def lies_on(slice_: Any, grid: Grid) -> bool:
    """Whether the four corner pixels of a slice are voxels of the grid."""
    ends = np.array([(c, r, 0) for c in (0, slice_.Columns - 1) for r in (0, slice_.Rows - 1)])
    world = apply_affine(plane_affine(slice_, normal(slice_)), ends)
    places = apply_affine(np.linalg.inv(grid.affine), world)
    whole = np.rint(places)
    inside = (whole >= 0).all() and (whole < grid.shape).all()
    apart = np.linalg.norm(apply_affine(grid.affine, whole) - world, axis=1).max()
    return bool(inside and apart < SAME_PLACE)


def frames(labels: Array, grid: Grid, series: Sequence[Any]) -> Integer[ndarray, "n rows columns"]:
    """The labels as pixels of the slices, in their order."""
    first, last = (
        np.array(one.ImagePositionPatient, np.float64) for one in (series[0], series[-1])
    )
    step = (last - first) / (len(series) - 1) if len(series) > 1 else normal(series[0])
    shape = (int(series[0].Columns), int(series[0].Rows), len(series))
    stack = Grid(shape, plane_affine(series[0], step))
    pixels = resample(labels, grid, stack, order=0)
    return np.ascontiguousarray(rearrange(pixels, "column row n -> n row column"))


def write_segmentation(
    path: Path, series: Sequence[Any], labels: Array, grid: Grid, *, organs: Mapping[int, str]
) -> None:
    """Write the organs of a label volume as the segments of one DICOM SEG, in their order.

    `series` are the slices (pydicom data sets) that `labels` (x, y, z) on `grid` belongs to.
    Raises `UserError` where the slices lack what DICOM demands of a segmentation's source.
    """
    from io import BytesIO

    pixels = frames(labels, grid, series)
    counted = np.zeros_like(pixels)
    for place, number in enumerate(organs, start=1):
        counted[pixels == number] = place
    try:
        segmentation = describe(series, counted, list(organs.values()))
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        why = " ".join(str(error).split())
        raise UserError(
            f"{path}: the slices of the query cannot carry a segmentation ({why}); leave "
            "--dicom-seg out, or mend the series"
        ) from None
    content = BytesIO()
    segmentation.save_as(content)
    write_bytes(path, content.getvalue())


def describe(series: Sequence[Any], pixels: Integer[ndarray, "n h w"], names: list[str]) -> Any:
    """The data set: where the segments come from, what they are called, and their pixels."""
    import highdicom
    from highdicom import seg
    from pydicom.sr.codedict import codes

    own = version("catnet")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="catnet", version=own, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        describe_segment(number, name, algorithm) for number, name in enumerate(names, start=1)
    ]
    return seg.Segmentation(
        source_images=list(series),
        pixel_array=pixels,
        segmentation_type=seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=100,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="catnet",
        manufacturer_model_name="catnet predict",
        software_versions=f"{own}, highdicom {highdicom.__version__}",
        device_serial_number="none",
        content_label="PREDICTION",
        content_description="Not a medical device",
    )


def describe_segment(number: int, name: str, algorithm: Any) -> Any:
    """One segment: an organ by its SNOMED code and side where DICOM knows its name."""
    from highdicom import seg
    from highdicom.sr import CodedConcept
    from pydicom.sr.codedict import codes

    kind, side = organ_code(name)
    segment = seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=kind,
        algorithm_type=seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
    )
    if side is not None:
        (concept,) = segment.SegmentedPropertyTypeCodeSequence
        concept.SegmentedPropertyTypeModifierCodeSequence = [CodedConcept.from_code(side)]
    return segment


def organ_code(name: str) -> tuple[Any, Any | None]:
    """SNOMED's code of an organ and of its side, by DICOM's own lists of what is segmented.

    `Organ` where the name is none of theirs, as they are English.
    """
    from pydicom.sr.codedict import codes

    groups = (codes.CID7154, codes.CID7155, codes.CID7152, codes.CID7160)
    known = {key.casefold(): code for group in groups for key, code in group.concepts.items()}
    side, words = side_of(name)
    sides = {"left": codes.SCT.Left, "right": codes.SCT.Right}
    if side and side + "".join(words) in known:  # the ventricles have codes of their own
        return known[side + "".join(words)], None
    found = known.get("".join(words))
    return (found, sides.get(side)) if found is not None else (codes.SCT.Organ, None)
