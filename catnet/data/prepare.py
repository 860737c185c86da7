"""From raw files to prepared cases: one orientation, spacing, window and size, memory-mapped.

    read -> orient, resample, crop or pad (one interpolation) -> clip -> z-score -> write

A case becomes a folder with `image.npy` (float32, slices first), `label.npy` (uint16) and
`meta.json`, which keeps both grids, so that a prediction can go back onto the scanner's grid.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from einops import rearrange

from catnet.data.body import coarse_grid, find_body
from catnet.data.card import Card
from catnet.data.labels import check_pair, label_files, read_label
from catnet.data.sources import check_label, raw_cases, source_hash
from catnet.data.store import (
    Case,
    Meta,
    case_folder,
    clear_leftovers,
    prepared_cases,
    write_folder,
)
from catnet.data.volume import (
    MOST_VOXELS,
    Array,
    Grid,
    Moved,
    ScanFile,
    centered,
    read_volume,
    resample,
    standard_grid,
)
from catnet.data.workers import outcomes
from catnet.errors import UserError
from catnet.paths import data_home


def prepare(
    card: Card,
    raw: Path,
    *,
    jobs: int = 1,
    keep_going: bool = False,
    resample_labels: bool = False,
) -> Iterator[tuple[str, int, bool]]:
    """Prepare every case of `raw`; yields (case, number of cases, whether there was work).

    A case whose files and card are unchanged since it was prepared is left as it is. Raises the
    `UserError` of a bad case at once; with `keep_going` it stops no other, and `CasesFailedError`
    comes at the end. `resample_labels` takes labels that do not lie on their image's grid.
    """
    pairs = raw_cases(card, raw)
    for image, label in pairs.values() if not keep_going else ():
        check_label(card, image, label)
    clear_leftovers(data_home() / card.name)
    tasks = {case: (card, case, *files, resample_labels) for case, files in pairs.items()}
    failed = {}
    for case, outcome in outcomes(work, tasks, jobs=jobs):
        if isinstance(outcome, UserError):
            failed[case] = outcome
            if not keep_going:
                raise outcome
            continue
        yield case, len(pairs), outcome
    if failed:
        raise CasesFailedError(failed, total=len(pairs))
    left = {case.name for case in prepared_cases(card)} - set(pairs)
    if left:
        raise UserError(
            f"{case_folder(card, min(left))}: prepared before, but {raw} has no such case now; "
            "bring its scan back, or delete this folder"
        )


class CasesFailedError(UserError):
    """Some cases could not be prepared; the others were."""

    def __init__(self, failed: Mapping[str, UserError], *, total: int) -> None:
        self.failed = {case: str(error) for case, error in failed.items()}
        names = ", ".join(list(failed)[:8]) + (", ..." if len(failed) > 8 else "")
        super().__init__(
            f"{len(failed)} of {total} cases could not be prepared ({names}); mend what is said of "
            "them and give the same command"
        )


def work(task: tuple[Card, str, Path, Path, bool]) -> bool:
    """Prepare one case where that is not done yet; whether there was work."""
    card, case, image, label, resample_labels = task
    check_label(card, image, label)
    sources = {
        "image": source_hash([image]),
        "label": source_hash(label_files(card, label).values()),
    }
    key = {"preparation": card.preparation(), "sources": sources}
    folder = case_folder(card, case)
    if is_prepared(folder, key) and (resample_labels or not Case(folder).meta.resampled):
        return False
    arrays, facts = prepare_case(card, image, label, resample_labels=resample_labels)
    write_folder(folder, arrays, Meta(case=case, **facts, **key))
    return True


def is_prepared(folder: Path, key: dict) -> bool:
    """Whether a case was prepared from these very sources by this very recipe."""
    case = Case(folder)
    try:
        meta, shapes = case.meta, {case.image.shape, case.label.shape}
    except UserError:
        return False
    return shapes == {meta.shape} and all(getattr(meta, k) == value for k, value in key.items())


def prepare_case(
    card: Card, image: Path, label: Path, *, resample_labels: bool = False
) -> tuple[dict[str, np.ndarray], dict]:
    """The arrays of one case, slices first, and what its `Meta` says of them."""
    scan = read_volume(image)
    truth = read_label(card, label, scan=scan)
    remarks, resampled = scan.remarks + truth.remarks, False
    try:
        check_pair(scan, truth, image=image, label=label, option="--resample-labels")
    except UserError:
        if not resample_labels:
            raise
        resampled = True
        remarks += (f"{label}: on a grid of its own, resampled by nearest neighbor",)
    normal, grid = prepare_image(card, scan, path=image)
    labels = resample(truth.voxels, truth.grid, grid, order=0)
    if not any((labels == number).any() for number in card.organs.values()):
        raise UserError(f"{label}: shows none of the card's organs; check organs and size")
    remarks += tuple(lost_organs(card, truth.voxels, labels, label=label))
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
        "remarks": remarks,
        "resampled": resampled,
    }
    return arrays, facts


def lost_organs(card: Card, raw: Array, labels: Moved, *, label: Path) -> Iterator[str]:
    """A sentence for every organ that the label shows, and the prepared case does not."""
    for organ, number in card.organs.items():
        if not (labels == number).any() and (raw == number).any():
            yield (
                f"{label}: shows {organ}, and nothing of it is left on the prepared grid; check "
                "the card's size and spacing"
            )


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
    if not standardize(voxels):
        raise UserError(f"{path}: intensities {low:g} to {high:g} are extreme; rescale the scan")
    return voxels, grid


def standardize(voxels: Array) -> bool:
    """Z-score in place, slice by slice in double precision; whether that was possible."""
    mean = voxels.mean(dtype=np.float64)
    if not math.isfinite(mean):
        return False
    planes = [voxels[..., z] for z in range(voxels.shape[2])]
    deviation = math.sqrt(sum(np.square(plane - mean).sum() for plane in planes) / voxels.size)
    if not 0 < deviation < math.inf:
        return False
    for plane in planes:
        plane[...] = (plane - mean) / deviation
    return True


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
    flat = resample(body.astype(np.uint8), coarse, standard, order=0).any(axis=2)
    ends = [np.flatnonzero(flat.any(axis=other))[[0, -1]] for other in (1, 0)]
    center = tuple(end.sum() / 2 for end in ends)
    grid = centered(standard, size=card.size, center=center)
    outside = resample(body.astype(np.float32), coarse, grid, order=1) <= 0.25
    voxels = sample(scan, grid, low=low, high=high)
    np.copyto(voxels, np.float32(low), where=outside)
    return voxels, grid


def sample(scan: ScanFile, grid: Grid, *, low: float, high: float) -> Array:
    """Intensities on `grid`, clipped, in float32; outside of the scan they are `low`."""
    voxels = scan.voxels
    if voxels.dtype.kind == "f" or voxels.dtype.itemsize > 2:
        with np.errstate(over="ignore"):  # an infinite one is clipped, or refused
            voxels = voxels.astype(np.float32)
    found = resample(voxels, scan.grid, grid, order=1, fill=low, kind=np.float32)
    with np.errstate(over="ignore"):
        return np.clip(found, low, high, out=found)


def clip_bounds(card: Card, voxels: Array) -> tuple[float, float]:
    """The lowest and highest intensity that is kept."""
    if card.clip.window is not None:
        return card.clip.window
    low, high = np.percentile(voxels.ravel(order="K"), card.clip.percentiles)
    return float(low), float(high)
