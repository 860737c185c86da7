"""Images and their labels as they are read for the page, and what is odd about them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catnet.data.labels import check_pair, read_numbers
from catnet.data.volume import ScanFile, read_volume
from catnet.errors import UserError


@dataclass(frozen=True)
class Pair:
    """An image and label volumes of it."""

    image: Path
    labels: tuple[Path, ...]


@dataclass(frozen=True)
class Opened:
    """What a pair's files hold, what its labels call their numbers, and what is odd, in words."""

    image: ScanFile
    labels: dict[Path, ScanFile]
    names: dict[int, str]
    warnings: tuple[str, ...]


def read_pair(pair: Pair) -> Opened:
    """An image with its labels; raises `UserError` where they look swapped, or a label is none."""
    image = read_volume(pair.image)
    volumes, names, warnings = {}, {}, image.remarks
    for path in pair.labels:
        volumes[path], own = read_numbers(path, scan=image)
        names |= own
        check_label(volumes[path], path=path)
        if fewer_values(image, than=len(shown(volumes[path]))):
            raise UserError(
                f"{pair.image}: holds fewer values than its label {path}; the image comes first: "
                "IMAGE LABEL"
            )
        warnings += volumes[path].remarks
        try:
            check_pair(image, volumes[path], image=pair.image, label=path)
        except UserError as error:
            warnings += (f"{error}; it is shown where its own affine puts it",)
    return Opened(image, volumes, names, warnings)


def check_label(volume: ScanFile, *, path: Path) -> None:
    """Raise `UserError` where a label volume holds what is no label number."""
    if not np.array_equal(volume.voxels, np.rint(volume.voxels)) or volume.voxels.min() < 0:
        raise UserError(
            f"{path}: is no label volume, its values are not whole or below 0; swap the files?"
        )


def fewer_values(image: ScanFile, *, than: int) -> bool:
    """Whether an image that is not constant shows fewer values; a part of it mostly says so."""
    some = len(np.unique(image.voxels[::4, ::4, ::4]))
    return some < than and 1 < len(np.unique(image.voxels)) < than


def shown(volume: ScanFile) -> list[int]:
    """The label numbers of a volume, without the background."""
    return [int(number) for number in np.unique(volume.voxels) if number]
