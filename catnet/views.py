"""What a browser shows of an evaluated case: slices and the masks of every round, one file a case.

A view is one organ on one query slice. Slices are stored once, however many organs they show.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Bool, Float, Integer, UInt8
from numpy import ndarray

from catnet.errors import UserError
from catnet.files import write_bytes

MASKS = ("truth", "support_mask", "rounds")  # a bit a pixel in the file
NAMES = ("query", "support", "first_support", "model")
FORMAT = 1
MOST = 1 << 30  # bytes of a file's arrays, unpacked
DAMAGE = (  # of np.load
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError),
    *(NotImplementedError, OverflowError, RuntimeError, SyntaxError),
)


@dataclass(frozen=True)
class CaseViews:
    """One query case with its supports, by one trained network; v views, o organs, r masks M_i.

    query, support   names of the cases; several shots are joined by +, and the first one is shown
    organs           names; protocols and dice (in %, of the volume) stand beside them
    slices, images   numbers of the query slices that are shown, and their pixels
    organ            of every view, its place in `organs`; query_slice and support_slice its slices
    prior            CAT-Net's similarity prior at token size; none for a network without one
    slice_dice       Dice in % of every M_i on the slice; nan where neither mask shows the organ
    """

    query: str
    support: str
    first_support: str
    model: str
    organs: tuple[str, ...]
    protocols: tuple[str, ...]
    dice: Float[ndarray, " o"]
    slices: Integer[ndarray, " n"]
    images: UInt8[ndarray, "n h w"]
    support_slices: Integer[ndarray, " m"]
    support_images: UInt8[ndarray, "m h w"]
    organ: Integer[ndarray, " v"]
    query_slice: Integer[ndarray, " v"]
    support_slice: Integer[ndarray, " v"]
    truth: Bool[ndarray, "v h w"]
    support_mask: Bool[ndarray, "v h w"]
    rounds: Bool[ndarray, "v r h w"]
    slice_dice: Float[ndarray, "v r"]
    prior: UInt8[ndarray, "v i j"] | None


def spread_evenly(numbers: Sequence[int], most: int) -> list[int]:
    """At most `most` of the numbers, the first and the last among them."""
    places = np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).round())
    return [numbers[int(place)] for place in places]


def save_views(path: Path, views: CaseViews) -> None:
    """Write a compressed `.npz` without objects, whole or not at all."""
    arrays = {
        name: np.packbits(value, axis=-1) if name in MASKS else np.asarray(value)
        for name, value in vars(views).items()
        if value is not None
    }
    file = BytesIO()
    np.savez_compressed(file, format=np.asarray(FORMAT), **arrays)
    write_bytes(path, file.getvalue())


def load_views(path: Path) -> CaseViews:
    """What `save_views` wrote; raises `UserError` for a file that is not, or no longer, that."""
    try:
        with ZipFile(path) as file:
            if sum(member.file_size for member in file.infolist()) > MOST:
                raise ValueError("it unfolds to more than 1 GB")
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return unpack(arrays)
    except (*DAMAGE, BadZipFile, zlib.error) as error:
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(
            f"{path}: no readable views of a case ({reason}); evaluate its run again with --again"
        ) from None


def unpack(arrays: dict[str, ndarray]) -> CaseViews:
    """Views from the arrays of a file; raises `ValueError` or `KeyError` where they do not fit."""
    if arrays.pop("format") != FORMAT:
        raise ValueError("another version of the format")
    width = arrays["images"].shape[-1]
    found: dict[str, object] = {"prior": None, **arrays}
    for name in MASKS:
        found[name] = np.unpackbits(arrays[name], axis=-1, count=width).astype(bool)
    for name in NAMES:
        found[name] = str(arrays[name])
    for name in ("organs", "protocols"):
        found[name] = tuple(arrays[name].tolist())
    views = CaseViews(**found)
    demand_fit(views)
    return views


def demand_fit(views: CaseViews) -> None:
    """Raise `ValueError` where lengths, sizes or places of a file contradict each other."""
    count, size = len(views.organ), views.images.shape[1:]
    lengths = {len(getattr(views, name)) for name in (*MASKS, "query_slice", "support_slice")}
    lengths |= {len(views.slice_dice)} | ({count} if views.prior is None else {len(views.prior)})
    sizes = {getattr(views, name).shape[-2:] for name in (*MASKS, "support_images")}
    fits = (
        lengths == {count}
        and sizes == {size}
        and views.images.dtype == views.support_images.dtype == np.uint8
        and len(views.images) == len(views.slices)
        and len(views.support_images) == len(views.support_slices)
        and views.rounds.shape[:2] == views.slice_dice.shape
        and len(views.organs) == len(views.protocols) == len(views.dice)
        and np.isfinite(views.dice).all()
        and not np.isinf(views.slice_dice).any()
        and all(isinstance(name, str) for name in (*views.organs, views.query, views.support))
        and np.isin(views.organ, np.arange(len(views.organs))).all()
        and np.isin(views.query_slice, views.slices).all()
        and np.isin(views.support_slice, views.support_slices).all()
    )
    if not fits:
        raise ValueError("its arrays do not fit each other")
