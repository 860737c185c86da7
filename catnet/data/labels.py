"""Labels of every kind as one volume of the card's numbers.

A label is a volume; a folder of PNG masks, one for every DICOM slice; a DICOM SEG; or one mask file
an organ, where the card's `label` holds {organ}. `label_values` says how the release writes an
organ: a grey value, the name or number of a segment, or the word in place of {organ}.
"""

from itertools import product
from pathlib import Path

import numpy as np
from nibabel.affines import apply_affine

from catnet.arrays import Affine
from catnet.data.card import Card
from catnet.data.volume import Array, ScanFile, read_volume
from catnet.errors import UserError

SAME_PLACE = 0.1  # mm between the corners of two grids; programs round affines differently
NUMBERS = 1 << 16
MOST_NUMBERS = 128  # of a label; an image has more, and TotalSegmentator 117 organs
SEG = b"1.2.840.10008.5.1.4.1.1.66.4"  # DICOM's word for a segmentation
OPENING = 1024  # bytes of a file, within which DICOM says what it is
LARGEST = 1 << 31  # of a number that is told as unknown; above it is none of labels


def label_files(card: Card, label: Path) -> dict[str, Path]:
    """The files or folders of a label that are there: one of every organ, or a single one."""
    if "{organ}" not in str(label):
        return {"": label} if label.exists() else {}
    written = {organ: str(card.label_values.get(organ, organ)) for organ in card.organs}
    paths = {organ: Path(str(label).replace("{organ}", word)) for organ, word in written.items()}
    return {organ: path for organ, path in paths.items() if path.exists()}


def read_label(card: Card, label: Path, *, scan: ScanFile) -> ScanFile:
    """The label as the card's numbers in uint16, on its own grid.

    `scan` is what it belongs to: PNG masks lie on its slices. Raises `UserError` where the label
    cannot be read, or shows a number that the card does not know.
    """
    if "{organ}" in str(label):
        return read_masks(card, label_files(card, label))
    pictures = label.is_dir() and any(label.glob("[!.]*.png"))
    if pictures:
        from catnet.data.png import read_png_masks

        truth = read_png_masks(label, scan)
    elif is_seg(label):
        from catnet.data.dicom_seg import read_seg

        return read_seg(card, label, scan=scan)
    else:
        truth = read_volume(label)
    numbers = check_labels(card, truth, path=label)
    return ScanFile(numbers, truth.grid, remarks=truth.remarks)


def read_numbers(label: Path, *, scan: ScanFile) -> tuple[ScanFile, dict[int, str]]:
    """A label as its own numbers where no card says what they mean, and the names that it gives.

    A volume, or a DICOM SEG, whose segments have numbers and names; else as `read_label`.
    """
    if not is_seg(label):
        return read_volume(label), {}
    from catnet.data.dicom_seg import read_segments

    return read_segments(label, scan=scan)


def is_seg(label: Path) -> bool:
    """Whether a label is a DICOM segmentation, or the folder of one."""
    return label.is_dir() or label.suffix.lower() == ".dcm" or SEG in opening(label)


def opening(path: Path) -> bytes:
    """What a DICOM file says of its kind before anything else; nothing of other files."""
    try:
        with path.open("rb") as file:
            start = file.read(OPENING)
    except OSError:
        return b""
    return start if start[128:132] == b"DICM" else b""


def is_label_like(voxels: Array) -> bool:
    """Whether a volume holds few numbers, whole and from 0, as labels do and no scan does."""
    for some in (voxels[::4, ::4, ::4], voxels):
        whole = some.dtype.kind in "biu" or np.array_equal(some, np.rint(some))
        if not whole or some.min() < 0 or len(distinct(some)) > MOST_NUMBERS:
            return False
    return True


def read_masks(card: Card, paths: dict[str, Path]) -> ScanFile:
    """One mask file an organ, everything above 0 inside; an organ without a file is not shown."""
    merged, remarks = None, ()
    for organ, path in paths.items():
        mask = read_volume(path)
        if merged is None:
            first = path
            merged = ScanFile(np.zeros(mask.grid.shape, np.uint16, order="F"), mask.grid)
        check_pair(merged, mask, image=first, label=path)
        remarks += paint(merged.voxels, mask.voxels > 0, number=card.organs[organ], path=path)
    missing = [organ for organ in card.organs if organ not in paths]
    if missing:
        remarks += (f"{first.parent}: has no mask of {', '.join(missing)}",)
    if not merged.voxels.any():
        raise UserError(f"{first.parent}: its masks are empty; give one that shows an organ")
    return ScanFile(merged.voxels, merged.grid, remarks=remarks)


def paint(numbers: Array, mask: Array, *, number: int, path: Path) -> tuple[str, ...]:
    """Write `number` where `mask` is and nothing stands yet; a remark where something did."""
    taken = int(np.count_nonzero(numbers[mask]))
    numbers[mask & (numbers == 0)] = number
    if not taken:
        return ()
    return (f"{path}: {taken} of its voxels belong to an organ that the card names before it",)


def check_pair(
    scan: ScanFile, truth: ScanFile, *, image: Path, label: Path, option: str = ""
) -> None:
    """Raise `UserError` where a label does not lie on its image's grid.

    `option` is what the command has against it.
    """
    mend = f"or give {option} " if option else ""
    both = f"affines: label {in_words(truth.grid.affine)}, image {in_words(scan.grid.affine)}"
    if scan.grid.shape != truth.grid.shape:
        raise UserError(
            f"{label}: shape {truth.grid.shape} differs from {scan.grid.shape} of {image}; "
            f"resample the label onto its image {mend}({both})"
        )
    corners = np.array(list(product(*((0, n - 1) for n in scan.grid.shape))))
    here, there = (apply_affine(volume.grid.affine, corners) for volume in (scan, truth))
    apart = np.linalg.norm(here - there, axis=1).max()
    if apart > SAME_PLACE:
        raise UserError(
            f"{label}: its affine puts voxels up to {apart:.3g} mm away from those of {image}; "
            f"copy the image's affine if both lie on one grid, else resample the label {mend}"
            f"({both})"
        )


def in_words(affine: Affine) -> str:
    """The upper three rows of an affine, on one line."""
    rows = (" ".join(f"{value:.5g}" for value in row) for row in affine[:3])
    return f"[{'; '.join(rows)}]"


def check_labels(card: Card, truth: ScanFile, *, path: Path) -> Array:
    """The label as the card's uint16; raises `UserError` for a number that it does not know.

    Slice by slice: a whole volume of indices would take many times the label's memory.
    """
    written = {card.label_values.get(organ, n): n for organ, n in card.organs.items()}
    if words := [word for word in written if isinstance(word, str)]:
        raise UserError(
            f"{path}: holds numbers, but label_values of card {card.name} says {words[0]!r}; give "
            "the number that stands for the organ"
        )
    values = written | {0: 0} | {number: number for number in card.other_labels}
    table = np.zeros(NUMBERS, dtype=np.uint16)
    table[list(values)] = list(values.values())
    numbers = np.empty(truth.voxels.shape, dtype=np.uint16, order="F")
    unknown, seen = set(), set()
    for z in range(truth.voxels.shape[2]):
        whole = whole_numbers(truth.voxels[..., z], path=path)
        found = set(distinct(whole))
        seen |= found
        unknown |= found - set(values)
        if not unknown:
            numbers[..., z] = table[whole]
    if unknown:
        raise UserError(
            f"{path}: label numbers {sorted(unknown)[:8]} are not in card {card.name}; add them to "
            "organs or other_labels, or say in label_values how organs are written"
        )
    if seen == {0}:
        raise UserError(f"{path}: the label is empty; give one that shows an organ")
    return numbers


def whole_numbers(plane: np.ndarray, *, path: Path) -> np.ndarray:
    """A slice as whole numbers; raises `UserError` for one between two of them."""
    if plane.dtype.kind in "biu":
        return plane
    whole = np.rint(plane)
    broken = plane[~((np.abs(plane - whole) <= 1e-3) & (np.abs(plane) < LARGEST))]
    if broken.size:
        raise UserError(
            f"{path}: labels are not whole numbers (such as {broken.min():g}); resample them with "
            "nearest neighbor"
        )
    return whole.astype(np.int64)


def distinct(plane: np.ndarray) -> list[int]:
    """The numbers of a slice, each once."""
    if plane.min() >= 0 and plane.max() < NUMBERS:
        return np.flatnonzero(np.bincount(plane.ravel(order="K").astype(np.int64))).tolist()
    return np.unique(plane).tolist()
