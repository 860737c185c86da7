"""Labels in a DICOM segmentation (SEG), read by highdicom: one segment an organ.

Frames without an organ are often left out, so the segments are put onto the grid of their scan
where their voxels are voxels of it. DICOM PS3.3, A.51.
"""

import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import highdicom as hd
import numpy as np
from einops import rearrange
from highdicom.seg import Segmentation
from nibabel.affines import apply_affine
from pydicom.errors import BytesLengthException, InvalidDicomError

from catnet.data.card import Card
from catnet.data.dicom import refuse_deflated
from catnet.data.labels import SAME_PLACE, paint
from catnet.data.volume import Array, Grid, ScanFile
from catnet.errors import UserError

BROKEN = (
    *(AttributeError, LookupError, NotImplementedError, OSError, RuntimeError, TypeError),
    *(EOFError, MemoryError, OverflowError, ValueError, struct.error),
    *(BytesLengthException, InvalidDicomError),
)
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read_seg(card: Card, path: Path, *, scan: ScanFile) -> ScanFile:
    """The card's organs in a DICOM SEG file, or in a folder that holds one.

    On the grid of `scan` where the voxels agree, else on the segmentation's own. Raises `UserError`
    where it cannot be read, is no mask, or has no segment of the card.
    """
    file = only_file(path) if path.is_dir() else path
    volumes = read_volumes(file, lambda seg: choose_segments(card, seg, path=file), scan=scan)
    numbers = {organ: card.organs[organ] for organ in volumes}
    return merge(volumes, numbers, path=file, grid=scan.grid)


def read_segments(path: Path, *, scan: ScanFile) -> tuple[ScanFile, dict[int, str]]:
    """All segments of a DICOM SEG by their own numbers, where there is no card; and their names.

    Otherwise as `read_seg`.
    """
    file = only_file(path) if path.is_dir() else path
    names: dict[int, str] = {}

    def choose(seg: Segmentation) -> dict[str, int]:
        check_binary(seg, path=file)
        for number in seg.segment_numbers:
            names[int(number)] = str(seg.get_segment_description(number).segment_label)
        return {str(number): number for number in names}

    volumes = read_volumes(file, choose, scan=scan)
    numbers = {text: int(text) for text in volumes}
    return merge(volumes, numbers, path=file, grid=scan.grid), names


def read_volumes(
    file: Path, choose: Callable[[Segmentation], dict[str, int]], *, scan: ScanFile
) -> dict[str, ScanFile]:
    """The chosen segments as masks; raises `UserError` where the file is not one of this scan."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of values that are not quite DICOM
            refuse_deflated(file)
            seg = hd.seg.segread(file)
            check_frame(seg, scan, path=file)
            return {key: read_segment(seg, number) for key, number in choose(seg).items()}
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise UserError(f"{file}: not a readable DICOM SEG ({why}); get it again") from None


def merge(
    volumes: Mapping[str, ScanFile], numbers: Mapping[str, int], *, path: Path, grid: Grid
) -> ScanFile:
    """Masks as one volume of numbers: on `grid` where their voxels are voxels of it."""
    placed = {key: on_grid(volume, grid) for key, volume in volumes.items()}
    if any(mask is None for mask in placed.values()):
        grid = next(iter(volumes.values())).grid
        placed = {key: volume.voxels for key, volume in volumes.items()}
    found, remarks = np.zeros(grid.shape, dtype=np.uint16, order="F"), ()
    for key, mask in placed.items():
        remarks += paint(found, mask > 0, number=numbers[key], path=path)
    if not found.any():
        raise UserError(f"{path}: the label is empty; give one that shows an organ")
    return ScanFile(found, grid, remarks=remarks)


def check_frame(seg: Segmentation, scan: ScanFile, *, path: Path) -> None:
    """Raise `UserError` for a segmentation whose places are not those of the scan."""
    frame = str(seg.get("FrameOfReferenceUID", ""))
    if frame and scan.frame and frame != scan.frame:
        raise UserError(
            f"{path}: belongs to another examination (its FrameOfReferenceUID {frame} is not "
            f"{scan.frame} of the image); give the segmentation of this scan"
        )


def only_file(folder: Path) -> Path:
    """The one DICOM file in a folder; raises `UserError` for none or several."""
    found = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in {".dcm", ""})
    if len(found) != 1:
        raise UserError(
            f"{folder}: a label is PNG masks or one DICOM SEG file, and here are {len(found)} "
            "files of DICOM; give one"
        )
    return found[0]


def check_binary(seg: Segmentation, *, path: Path) -> None:
    """Raise `UserError` for a segmentation of probabilities."""
    if seg.SegmentationType == "FRACTIONAL":
        raise UserError(f"{path}: holds probabilities, not masks; give a binary segmentation")


def choose_segments(card: Card, seg: Segmentation, *, path: Path) -> dict[str, int]:
    """The segment of every organ of the card that is there: by name, or by number."""
    check_binary(seg, path=path)
    labels = [
        (seg.get_segment_description(number).segment_label.casefold(), number)
        for number in seg.segment_numbers
    ]
    names = dict(labels)
    written = {organ: card.label_values.get(organ, organ) for organ in card.organs}
    chosen = {
        organ: names.get(word.casefold()) if isinstance(word, str) else word
        for organ, word in written.items()
    }
    for word in (word.casefold() for word in written.values() if isinstance(word, str)):
        alike = [number for label, number in labels if label == word]
        if len(alike) > 1:
            raise UserError(
                f"{path}: {len(alike)} of its segments are called {word}; say in label_values of "
                f"card {card.name} which of the numbers {alike} is meant"
            )
    found = {organ: number for organ, number in chosen.items() if number in seg.segment_numbers}
    if not found:
        raise UserError(
            f"{path}: has segments {', '.join(names)}, none of card {card.name}; say in its "
            "label_values which segment is which organ"
        )
    return found


def read_segment(seg: Segmentation, number: int) -> ScanFile:
    """One segment as a volume (column, row, slice) of 0 and 1, in RAS+."""
    volume = seg.get_volume(segment_numbers=[number], combine_segments=True, relabel=True)
    turned = rearrange(volume.array, "slice row column -> column row slice")
    affine = TO_RAS @ volume.affine @ np.eye(4)[:, [2, 1, 0, 3]]
    return ScanFile(turned, Grid(turned.shape, affine))


def on_grid(mask: ScanFile, grid: Grid) -> Array | None:
    """A mask on `grid`, or nothing where its voxels lie between those of the grid."""
    if not np.allclose(sorted(mask.grid.spacing), sorted(grid.spacing), rtol=1e-3):
        return None
    inside = np.argwhere(mask.voxels)
    there = apply_affine(np.linalg.inv(grid.affine) @ mask.grid.affine, inside)
    whole = np.rint(there).astype(np.int64)
    apart = np.abs(there - whole).max(initial=0) * max(grid.spacing)
    if apart > SAME_PLACE or (whole < 0).any() or (whole >= grid.shape).any():
        return None
    placed = np.zeros(grid.shape, dtype=np.uint8, order="F")
    placed[tuple(whole.T)] = 1
    return placed
