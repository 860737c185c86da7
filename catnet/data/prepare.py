"""From raw files to prepared cases: one orientation, spacing, window and size, memory-mapped.

    read -> orient, resample, crop or pad (one interpolation) -> clip -> z-score -> write

A case becomes a folder with `image.npy` (float32, slices first), `label.npy` (uint16) and
`meta.json`, which keeps both grids, so that a prediction can go back onto the scanner's grid.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from glob import escape
from itertools import product
from pathlib import Path

import numpy as np
from einops import rearrange
from nibabel.affines import apply_affine

from catnet.data.body import coarse_grid, find_body
from catnet.data.card import Card
from catnet.data.store import Case, Meta, case_folder, natural, prepared_cases, write_folder
from catnet.data.volume import Array, Grid, ScanFile, centered, read_volume, resample, standard_grid
from catnet.errors import UserError

MOST_VOXELS = 2**31  # of a volume; far above any scanner's, far below what memory is for
SAME_PLACE = 0.1  # mm between the corners of two grids; programs round affines differently


def raw_cases(card: Card, raw: Path) -> dict[str, tuple[Path, Path]]:
    """Image and label of every case in `raw`, by name; raises `UserError` where none pair up."""
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; give the folder of the raw scans with --raw")
    before, after = (re.escape(part) for part in card.image.split("{case}"))
    pattern = re.compile(f"{before}(?P<case>[^/.][^/]*){after}")
    pairs = {}
    for path in sorted(raw.glob(escape(card.image).replace("{case}", "*"))):
        found = pattern.fullmatch(path.relative_to(raw).as_posix())
        label = raw / card.label.replace("{case}", found["case"]) if found else None
        if found and label != path and not is_label(card, path.relative_to(raw).as_posix()):
            pairs[found["case"]] = (path, label)
    if not pairs:
        raise UserError(f"{raw}: no file named like {card.image}; check --raw and the card's image")
    for image, label in pairs.values():
        if not image.name.isprintable():
            raise UserError(f"{str(image)!r}: a name with unreadable letters; rename the file")
        if not label.is_file():
            raise UserError(f"{image}: its label {label} is not there; add it or mend the card")
    return dict(sorted(pairs.items(), key=lambda item: natural(item[0])))


def is_label(card: Card, name: str) -> bool:
    """Whether a file that the image pattern matches is one that the label pattern means."""
    before, after = card.label.split("{case}")
    image_before, image_after = card.image.split("{case}")
    longer = len(before) + len(after) > len(image_before) + len(image_after)
    return longer and name.startswith(before) and name.endswith(after)


def prepare(card: Card, raw: Path) -> Iterator[tuple[str, int, bool]]:
    """Prepare every case of `raw`; yields (case, number of cases, whether there was work).

    A case whose files and card are unchanged since it was prepared is left as it is.
    """
    pairs = raw_cases(card, raw)
    for case, (image, label) in pairs.items():
        sources = {"image": file_hash(image), "label": file_hash(label)}
        key = {"preparation": card.preparation(), "sources": sources}
        folder = case_folder(card, case)
        fresh = not is_prepared(folder, key)
        if fresh:
            arrays, facts = prepare_case(card, image, label)
            meta = Meta(case=case, **facts, **key)
            write_folder(folder, arrays, meta)
        yield case, len(pairs), fresh
    left = {case.name for case in prepared_cases(card)} - set(pairs)
    if left:
        raise UserError(
            f"{case_folder(card, min(left))}: prepared before, but {raw} has no such case now; "
            "bring its scan back, or delete this folder"
        )


def is_prepared(folder: Path, key: dict) -> bool:
    """Whether a case was prepared from these very sources by this very recipe."""
    case = Case(folder)
    try:
        meta, shapes = case.meta, {case.image.shape, case.label.shape}
    except UserError:
        return False
    return shapes == {meta.shape} and all(getattr(meta, k) == value for k, value in key.items())


def prepare_case(card: Card, image: Path, label: Path) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of one case, slices first, and what its `Meta` says of them."""
    scan, truth = read_volume(image), read_volume(label)
    check_pair(scan, truth, image=image, label=label)
    numbers = check_labels(card, truth, path=label)
    normal, grid = prepare_image(card, scan, path=image)
    labels = resample(numbers, truth.grid, grid, order=0)
    if not np.isin(list(card.organs.values()), labels).any():
        raise UserError(f"{label}: shows none of the card's organs; check organs and size")
    arrays = {
        "image": rearrange(normal, "x y z -> z y x"),
        "label": rearrange(labels, "x y z -> z y x").astype(np.uint16),
    }
    facts = {
        "shape": arrays["image"].shape,
        "affine": grid.affine.tolist(),
        "spacing": grid.spacing,
        "raw_shape": scan.grid.shape,
        "raw_affine": scan.grid.affine.tolist(),
        "pixels": {
            organ: (arrays["label"] == number).sum(axis=(1, 2)).tolist()
            for organ, number in card.organs.items()
        },
    }
    return arrays, facts


def prepare_image(card: Card, scan: ScanFile, *, path: Path) -> tuple[Array, Grid]:
    """The image of one scan as the card says, in float32 and z-scored, and where it lies.

    Raises `UserError` where no contrast is left; `path` is what it names.
    """
    low, high = clip_bounds(card, scan.voxels)
    if not low < high:
        raise UserError(f"{path}: after clipping every voxel is {low:g}; check the card's clip")
    standard = standard_grid(scan.grid, orientation=card.orientation, spacing=card.spacing)
    if math.prod(standard.shape) > MOST_VOXELS:
        raise UserError(
            f"{path}: would have {standard.shape} voxels at the card's spacing; check the file's "
            f"voxel size, {scan.grid.spacing} mm, and the card"
        )
    voxels, grid = place(card, scan, standard, bounds=(low, high))
    if voxels.min() == voxels.max():
        raise UserError(f"{path}: the cropped volume is constant; check the card's clip and size")
    deviation = float(voxels.std(dtype=np.float64))
    if not (np.isfinite(voxels).all() and 0 < deviation < np.inf):
        raise UserError(f"{path}: intensities {low:g} to {high:g} are extreme; rescale the scan")
    normal = (voxels - voxels.mean(dtype=np.float64)) / deviation
    return normal.astype(np.float32), grid


def place(
    card: Card, scan: ScanFile, standard: Grid, *, bounds: tuple[float, float]
) -> tuple[Array, Grid]:
    """The clipped image on its final grid: around the volume's middle, or around the body."""
    low, high = bounds
    center = tuple((n - 1) / 2 for n in standard.shape[:2])
    if card.body_threshold is None:
        grid = centered(standard, size=card.size, center=center)
        return sample(scan, grid, low=low, high=high), grid
    every, coarse = coarse_grid(scan.grid)
    body = find_body(scan.voxels[every], threshold=card.body_threshold)
    extent = np.argwhere(resample(body.astype(np.uint8), coarse, standard, order=0))
    center = tuple((extent.min(axis=0) + extent.max(axis=0))[:2] / 2)
    grid = centered(standard, size=card.size, center=center)
    inside = resample(body.astype(np.float32), coarse, grid, order=1) > 0.25
    return np.where(inside, sample(scan, grid, low=low, high=high), np.float32(low)), grid


def sample(scan: ScanFile, grid: Grid, *, low: float, high: float) -> Array:
    """Intensities on `grid`, clipped, in float32; outside of the scan they are `low`."""
    voxels = resample(scan.voxels.astype(np.float32), scan.grid, grid, order=1, fill=low)
    return np.clip(voxels, low, high)


def check_pair(scan: ScanFile, truth: ScanFile, *, image: Path, label: Path) -> None:
    """Raise `UserError` where a label does not lie on its image's grid."""
    if scan.grid.shape != truth.grid.shape:
        raise UserError(
            f"{label}: shape {truth.grid.shape} differs from {scan.grid.shape} of {image}; "
            "resample the label onto its image"
        )
    corners = np.array(list(product(*((0, n - 1) for n in scan.grid.shape))))
    here, there = (apply_affine(volume.grid.affine, corners) for volume in (scan, truth))
    apart = np.linalg.norm(here - there, axis=1).max()
    if apart > SAME_PLACE:
        raise UserError(
            f"{label}: its affine puts voxels up to {apart:.3g} mm away from those of {image}; "
            "copy the image's affine if both lie on one grid, else resample the label"
        )


def check_labels(card: Card, truth: ScanFile, *, path: Path) -> Array:
    """The label as uint16; raises `UserError` for a number that the card does not know."""
    numbers = np.unique(truth.voxels)
    whole = np.rint(numbers)
    broken = numbers[np.abs(numbers - whole) > 1e-3]
    if broken.size:
        raise UserError(
            f"{path}: labels are not whole numbers (such as {broken[0]:g}); resample them with "
            "nearest neighbor"
        )
    known = {0, *card.organs.values(), *card.other_labels}
    unknown = [int(number) for number in whole if int(number) not in known]
    if unknown:
        raise UserError(
            f"{path}: label numbers {unknown[:8]} are not in card {card.name}; add them to "
            "organs or other_labels"
        )
    if not whole.any():
        raise UserError(f"{path}: the label is empty; give one that shows an organ")
    return np.rint(truth.voxels).astype(np.uint16)


def clip_bounds(card: Card, voxels: Array) -> tuple[float, float]:
    """The lowest and highest intensity that is kept."""
    if card.clip.window is not None:
        return card.clip.window
    low, high = np.percentile(voxels, card.clip.percentiles)
    return float(low), float(high)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents; raises `UserError` where it cannot be read."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    return total.hexdigest()
