"""Images and their labels as they are read for the page, and what is odd about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catnet.data.labels import check_pair
from catnet.data.volume import ScanFile, read_volume
from catnet.errors import UserError


@dataclass(frozen=True)
class Pair:
    """An image and label volumes of it."""

    image: Path
    labels: tuple[Path, ...]


def read_labels(path: Path) -> ScanFile:
    """A label volume; raises `UserError` where it holds no whole numbers."""
    volume = read_volume(path)
    if not np.array_equal(volume.voxels, np.rint(volume.voxels)) or volume.voxels.min() < 0:
        raise UserError(
            f"{path}: is no label volume, its values are not whole or below 0; swap the files?"
        )
    return volume


def read_image(pair: Pair, volumes: Mapping[Path, ScanFile]) -> ScanFile:
    """The image of a pair; raises `UserError` where it looks like a label, and its label not."""
    image = read_volume(pair.image)
    for path in pair.labels:
        if fewer_values(image, than=len(shown(volumes[path]))):
            raise UserError(
                f"{pair.image}: holds fewer values than its label {path}; swap the files?"
            )
    return image


def fewer_values(image: ScanFile, *, than: int) -> bool:
    """Whether an image that is not constant shows fewer values; a part of it mostly says so."""
    some = len(np.unique(image.voxels[::4, ::4, ::4]))
    return some < than and 1 < len(np.unique(image.voxels)) < than


def oddities(
    pair: Pair, images: Mapping[Path, ScanFile], volumes: Mapping[Path, ScanFile]
) -> list[str]:
    """What was decided while reading, and which label does not lie on the image's grid."""
    image, found = images[pair.image], []
    for path in pair.labels:
        try:
            check_pair(image, volumes[path], image=pair.image, label=path, remedy="")
        except UserError:
            found.append(f"{path.name} lies on another grid than {pair.image.name}.")
    scans = (image, *(volumes[path] for path in pair.labels))
    return [*found, *(sentence for scan in scans for sentence in scan.remarks)]


def shown(volume: ScanFile) -> list[int]:
    """The label numbers of a volume, without the background."""
    return [int(number) for number in np.unique(volume.voxels) if number]
