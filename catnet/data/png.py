"""Masks as PNG pictures, one for every slice of a DICOM series, as CHAOS ships them.

A picture shares rows and columns with its slice. It belongs to the slice whose file has its name;
where the names differ, to the one that has its place when both lists are sorted by name, as
positions say nothing of pictures (the CT of CHAOS runs from head to feet or back).
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray
from PIL import Image

from catnet.data.store import natural
from catnet.data.volume import ScanFile
from catnet.errors import UserError

BROKEN = (OSError, ValueError, SyntaxError, LookupError, OverflowError, struct.error, zlib.error)
GREY = {"1", "L", "P", "I", "I;16"}


def read_png_masks(folder: Path, scan: ScanFile) -> ScanFile:
    """The grey values of a folder's PNG files on the grid of `scan`, a DICOM series.

    Raises `UserError` where pictures and slices do not pair up, and for a picture of another size
    before it is unpacked.
    """
    if not scan.files:
        raise UserError(f"{folder}: PNG masks need a DICOM series as their image; convert them")
    pictures, remarks = match(folder, scan.files)
    columns, rows, slices = scan.grid.shape
    grey = np.empty((columns, rows, slices), dtype=np.uint16, order="F")
    for z, path in enumerate(pictures):
        grey[..., z] = read_picture(path, size=(columns, rows)).T
    return ScanFile(grey, scan.grid, remarks=remarks)


def match(folder: Path, slices: tuple[Path, ...]) -> tuple[list[Path], tuple[str, ...]]:
    """The picture of every slice, and a remark where names do not say so."""
    pictures = sorted(folder.glob("[!.]*.png"), key=lambda path: natural(path.name))
    by_name = {path.stem: path for path in pictures}
    if by_name.keys() == {path.stem for path in slices}:
        return [by_name[path.stem] for path in slices], ()
    if len(pictures) != len(slices):
        raise UserError(
            f"{folder}: has {len(pictures)} PNG masks for {len(slices)} slices; complete them"
        )
    if by_name.keys() & {path.stem for path in slices}:
        odd = next(path for path in pictures if path.stem not in {one.stem for one in slices})
        raise UserError(
            f"{odd}: has the name of no slice, though other masks have; name every mask like its "
            "slice, or none"
        )
    ranked = sorted(slices, key=lambda path: natural(path.name))
    by_rank = dict(zip(ranked, pictures, strict=True))
    pair = f"{pictures[0].name} with {ranked[0].name}"
    return [by_rank[path] for path in slices], (
        f"{folder}: its masks and slices are named differently, and paired in the order of names, "
        f"{pair} and so on",
    )


def read_picture(path: Path, *, size: tuple[int, int]) -> Shaped[ndarray, "row column"]:
    """One picture as grey values, palette numbers or bits."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if picture.size != size:
                raise UserError(
                    f"{path}: is {picture.size[0]} x {picture.size[1]} pixels, its slice "
                    f"{size[0]} x {size[1]}; give the masks of this series"
                )
            if picture.mode not in GREY:
                raise UserError(f"{path}: is colored ({picture.mode}); give masks in grey values")
            return np.asarray(picture)
    except (*BROKEN, Image.DecompressionBombError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: not a readable PNG file ({why}); get it again") from None
