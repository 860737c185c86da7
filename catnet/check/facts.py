"""What is measured of one prepared case, so that cases can be compared with each other."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from nibabel.affines import apply_affine
from numpy import ndarray

from catnet.arrays import LabelVolume, Volume
from catnet.data.card import Card
from catnet.data.store import Case
from catnet.data.volume import standard_grid

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Facts:
    """One case; lengths in mm along the card's axes, places in world mm (right, front, head).

    centers   of the organs that are shown
    slices    number of slices that show an organ, by organ; 0 where it is missing
    spacing, extent   of the raw scan, turned to the card's orientation
    clipped   share of an organ's voxels at the lowest or highest intensity of the case
    filled    share of all voxels that are not at the lowest intensity
    blank     slices that show an organ though their image is constant
    hashes    of the raw files and of the prepared arrays, by what they are of
    """

    case: str
    centers: Mapping[str, Triple]
    slices: Mapping[str, int]
    spacing: Triple
    extent: Triple
    clipped: Mapping[str, float]
    filled: float
    blank: int
    hashes: Mapping[str, str]


def examine(card: Card, case: Case) -> Facts:
    """Read a case once; raises `UserError` where it is damaged."""
    case.check_content("image", "label")
    image, label = np.asarray(case.image), np.asarray(case.label)
    low, high = float(image.min()), float(image.max())
    raw = standard_grid(case.meta.raw_grid, orientation=card.orientation, spacing=(None,) * 3)
    sizes = zip(raw.shape, raw.spacing, strict=True)
    masks = {organ: label == number for organ, number in card.organs.items()}
    shown = {organ: mask for organ, mask in masks.items() if mask.any()}
    labelled = np.flatnonzero((label > 0).any(axis=(1, 2)))
    return Facts(
        case=case.name,
        centers={organ: center(case, mask) for organ, mask in shown.items()},
        slices={organ: int(mask.any(axis=(1, 2)).sum()) for organ, mask in masks.items()},
        spacing=raw.spacing,
        extent=tuple(count * mm for count, mm in sizes),
        clipped={organ: at_ends(image[mask], low, high) for organ, mask in shown.items()},
        filled=float((image > low).mean()),
        blank=sum(bool(np.ptp(image[number]) == 0) for number in labelled),
        hashes=hashes_of(case, image, label),
    )


def center(case: Case, mask: Bool[ndarray, "d h w"]) -> Triple:
    """The centroid of a mask in the world."""
    x, y, z = apply_affine(case.meta.grid.affine, np.argwhere(mask).mean(axis=0)[::-1]).tolist()
    return x, y, z


def at_ends(values: Float[ndarray, " n"], low: float, high: float) -> float:
    """The share of values that are the lowest or the highest possible."""
    return float(((values <= low) | (values >= high)).mean())


def hashes_of(case: Case, image: Volume, label: LabelVolume) -> dict[str, str]:
    """Raw files by their bytes, prepared arrays by their values: a file may be packed anew."""
    raw = {f"raw {kind}": digest for kind, digest in case.meta.sources.items()}
    prepared = {"image": image, "label": label}
    return raw | {kind: content_hash(array) for kind, array in prepared.items()}


def content_hash(array: ndarray) -> str:
    """SHA-256 of shape and values."""
    values = np.ascontiguousarray(array)
    return hashlib.sha256(repr(values.shape).encode() + values.tobytes()).hexdigest()
