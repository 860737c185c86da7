"""Labels in a DICOM segmentation (SEG), read by highdicom: one segment an organ.

Frames without an organ are often left out, so the segments are put onto the grid of their scan
where their voxels are voxels of it. DICOM PS3.3, A.51.
"""

import struct
import warnings
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of values that are not quite DICOM
            refuse_deflated(file)
            seg = hd.seg.segread(file)
            chosen = choose_segments(card, seg, path=file)
            volumes = {organ: read_segment(seg, number) for organ, number in chosen.items()}
    except BROKEN as error:
        why = " ".join(str(error).split())
        raise UserError(f"{file}: not a readable DICOM SEG ({why}); get it again") from None
    placed = {organ: on_grid(volume, scan.grid) for organ, volume in volumes.items()}
    if all(mask is not None for mask in placed.values()):
        grid = scan.grid
    else:
        grid, placed = next(iter(volumes.values())).grid, {o: v.voxels for o, v in volumes.items()}
    numbers, remarks = np.zeros(grid.shape, dtype=np.uint16, order="F"), ()
    for organ, mask in placed.items():
        remarks += paint(numbers, mask > 0, number=card.organs[organ], path=file)
    if not numbers.any():
        raise UserError(f"{file}: the label is empty; give one that shows an organ")
    return ScanFile(numbers, grid, remarks=remarks)


def only_file(folder: Path) -> Path:
    """The one DICOM file in a folder; raises `UserError` for none or several."""
    found = sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in {".dcm", ""})
    if len(found) != 1:
        raise UserError(
            f"{folder}: a label is PNG masks or one DICOM SEG file, and here are {len(found)} "
            "files of DICOM; give one"
        )
    return found[0]


def choose_segments(card: Card, seg: Segmentation, *, path: Path) -> dict[str, int]:
    """The segment of every organ of the card that is there: by name, or by number."""
    if seg.SegmentationType == "FRACTIONAL":
        raise UserError(f"{path}: holds probabilities, not masks; give a binary segmentation")
    names = {
        seg.get_segment_description(number).segment_label.casefold(): number
        for number in seg.segment_numbers
    }
    written = {organ: card.label_values.get(organ, organ) for organ in card.organs}
    chosen = {
        organ: names.get(word.casefold()) if isinstance(word, str) else word
        for organ, word in written.items()
    }
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
