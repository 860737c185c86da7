"""NRRD and MetaImage (MHA, MHD) files as volumes, read by SimpleITK.

ITK's axes point left, back and up (LPS) and its arrays have the first axis last; with directions D,
spacing s and origin o,

    affine = diag(-1, -1, 1, 1) [ D diag(s) | o ]
"""

import math
import re
from pathlib import Path
from textwrap import shorten

import numpy as np
import SimpleITK
from einops import rearrange

from catnet.arrays import Affine
from catnet.data.volume import MOST_VOXELS, Grid, ScanFile
from catnet.errors import UserError

READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO"}  # the others are MetaImage
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
MOST_PACKED = 1100  # deflate makes nothing smaller than by 1032
MOST_AXES = {b"%d" % number for number in range(1, 5)}
HEADER = 1 << 16  # bytes in which a header is looked for


def read_itk(path: Path) -> ScanFile:
    """The volume in an NRRD or MetaImage file; raises `UserError` where there is none."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; check the folder and the card's pattern")
    kind = "NRRD" if path.suffix.lower() in READERS else "MetaImage"
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # they would stand between our lines
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(READERS.get(path.suffix.lower(), "MetaImageIO"))
    reader.SetFileName(str(path))
    check_axes(path)
    try:
        reader.ReadImageInformation()
        check_claim(path, reader)
        image = reader.Execute()
    except (RuntimeError, MemoryError) as error:
        why = shorten(str(error).rpartition("ERROR: ")[2], 160)
        raise UserError(f"{path}: not a readable {kind} file ({why}); get it again") from None
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3:
        raise UserError(
            f"{path}: has {image.GetDimension()} axes, {image.GetSize()}; give one 3D volume"
        )
    check_orientation(path)
    voxels = rearrange(SimpleITK.GetArrayFromImage(image), "z y x -> x y z")
    return ScanFile(voxels, Grid(voxels.shape, itk_affine(image)))


def check_axes(path: Path) -> None:
    """Raise `UserError` where a header names more axes than there are; MetaIO would crash."""
    with path.open("rb") as file:
        head = file.read(HEADER)
    for line in re.findall(rb"(?im)^[ \t]*(?:NDims|dimension)[ \t]*[:=](.*)$", head):
        if line.strip() not in MOST_AXES:
            axes = line[:20].decode(errors="replace").strip()
            raise UserError(f"{path}: has {axes!r} axes; give one 3D volume")


def check_claim(path: Path, reader: SimpleITK.ImageFileReader) -> None:
    """Raise `UserError` for colors, and for a header that claims more than its file can hold."""
    components = reader.GetNumberOfComponents()
    if components != 1:
        raise UserError(f"{path}: every voxel holds {components} numbers; give one volume of one")
    claimed = math.prod(reader.GetSize())
    if path.suffix.lower() in {".nrrd", ".mha"} and claimed > MOST_PACKED * path.stat().st_size:
        raise UserError(
            f"{path}: its header claims {reader.GetSize()} voxels, the file holds fewer; "
            "get it again"
        )
    if claimed > MOST_VOXELS:
        raise UserError(
            f"{path}: its header claims {reader.GetSize()} voxels, more than any scanner makes; "
            "get it again"
        )


def check_orientation(path: Path) -> None:
    """Raise `UserError` where a header does not say which way its axes point, or says it twice.

    ITK would take the first as left-posterior-superior, and mirror one of a negative spacing.
    """
    with path.open("rb") as file:
        head = file.read(HEADER)
    nrrd = path.suffix.lower() in READERS
    words = (b"space directions",) if nrrd else (b"TransformMatrix", b"Orientation", b"Rotation")
    lines = head.replace(b"\r", b"").split(b"\n\n")[0].split(b"\n")
    for line in lines:
        name, _, sizes = line.partition(b"=")
        if name.strip() == b"ElementSpacing" and b"-" in re.sub(rb"[eE]-", b"", sizes):
            raise UserError(
                f"{path}: its ElementSpacing is {sizes.strip()[:40].decode(errors='replace')}, and "
                "no distance is below 0; mend its header"
            )
    if not any(line.startswith(words) for line in lines):
        raise UserError(
            f"{path}: does not say which way its axes point (space directions, TransformMatrix); "
            "write its orientation, once you know it"
        )


def itk_affine(image: SimpleITK.Image) -> Affine:
    """Voxel indices (x, y, z) to world millimeters, RAS+."""
    affine = np.eye(4)
    directions = rearrange(np.array(image.GetDirection()), "(row column) -> row column", row=3)
    affine[:3, :3] = directions * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return TO_RAS @ affine
