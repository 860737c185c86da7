"""How the files of a data set lie: what a card says of them, found by looking at their folder.

Known are nnU-Net v2's raw folders, the Medical Segmentation Decathlon, TotalSegmentator, and
whatever pairs images with labels by a part of their names.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from catnet.errors import UserError
from catnet.strict import read_json

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr")
LABEL_WORDS = {"label", "labels", "labelstr", "seg", "segs", "segmentation", "segmentations"}
LABEL_WORDS |= {"mask", "masks", "gt", "ground", "truth", "manual", "lbl", "annotation"}
CHANNELS = {"ct": "CT", "mr": "MR", "mri": "MR", "t1": "MR", "t2": "MR"}
MOST_LOOKED_AT = 20_000  # files; a pattern shows earlier
MOST_PATTERNS = 60  # those that find most cases


@dataclass(frozen=True)
class Layout:
    """What the folder and its own description say."""

    kind: str
    image: str
    label: str
    organs: dict[str, int] = field(default_factory=dict)
    modality: str = ""


def find_layout(folder: Path) -> Layout:
    """How the scans in `folder` lie; raises `UserError` where nothing pairs up."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the folder of the raw scans")
    if (folder / "dataset.json").is_file() and (folder / "imagesTr").is_dir():
        return described(folder)
    masks = sorted(folder.glob("[!.]*/segmentations/[!.]*.nii.gz"))
    if masks:
        scans = [name for name in ("ct.nii.gz", "mri.nii.gz") if any(folder.glob(f"*/{name}"))]
        if scans:
            names = sorted({mask.name.removesuffix(".nii.gz") for mask in masks})
            organs = {name: number for number, name in enumerate(names, start=1)}
            image, modality = f"{{case}}/{scans[0]}", "CT" if scans[0] == "ct.nii.gz" else "MR"
            pattern = "{case}/segmentations/{organ}.nii.gz"
            return Layout("TotalSegmentator", image, pattern, organs, modality)
    return paired(folder)


def described(folder: Path) -> Layout:
    """A folder with `dataset.json`: nnU-Net v2 numbers the channels of images, the Decathlon not.

    The first channel is taken.
    """
    path = folder / "dataset.json"
    try:
        said = read_json(path)
        labels, channels = said["labels"], said.get("channel_names") or said.get("modality") or {}
        organs = read_organs(labels)
        first = str(channels.get("0", "")).lower()
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: names no labels and channels ({why}); mend it") from None
    ending = str(said.get("file_ending") or ".nii.gz")
    numbered = any(folder.glob(f"imagesTr/[!.]*_0000{ending}"))
    return Layout(
        "nnU-Net v2" if numbered else "Medical Segmentation Decathlon",
        f"imagesTr/{{case}}{'_0000' if numbered else ''}{ending}",
        f"labelsTr/{{case}}{ending}",
        organs,
        CHANNELS.get(re.split(r"[^a-z0-9]", first)[0], ""),
    )


def read_organs(labels: dict) -> dict[str, int]:
    """Organs and their numbers; a region of several labels is none of its own."""
    plain = {str(name): number for name, number in labels.items() if not isinstance(number, list)}
    if all(name.isdecimal() for name in plain):  # the Decathlon turns them round
        plain = {str(name): number for number, name in plain.items()}
    return {name: int(number) for name, number in plain.items() if int(number) > 0}


def paired(folder: Path) -> Layout:
    """The patterns that pair most images with labels, by a part of their names."""
    found = list(islice(scans(folder), MOST_LOOKED_AT))
    labels = [name for name in found if is_label(name)]
    images = [name for name in found if not is_label(name)]
    ours, theirs = patterns(images), patterns(labels)
    best, most = None, (0, 0)
    for image, cases in ours.items():
        for label, others in theirs.items():
            common = cases & others
            score = (len(common), -sum(map(len, common)))
            if common and score > most:
                best, most = (image, label), score
    if best is None:
        raise UserError(
            f"{folder}: holds {len(images)} images and {len(labels)} labels that do not pair up by "
            "name; write a card by the example in datasets/README.md"
        )
    return Layout("pairs by name", *best)


def scans(folder: Path) -> Iterator[str]:
    """Volumes, and folders of DICOM slices or of PNG masks, relative to `folder`."""
    seen = set()
    for path in sorted(folder.rglob("[!.]*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if name.lower().endswith(VOLUMES):
            yield name
        elif path.parent not in seen and path.parent != folder:
            seen.add(path.parent)
            if path.suffix.lower() == ".png" or is_dicom(path):
                yield path.parent.relative_to(folder).as_posix()


def is_dicom(path: Path) -> bool:
    """Whether a file opens as DICOM does."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def is_label(name: str) -> bool:
    """Whether a name says that a file is a label."""
    return bool(LABEL_WORDS & set(re.split(r"[^a-z]+", name.lower())))


def patterns(names: list[str]) -> dict[str, set[str]]:
    """Every pattern that takes one part of a name for the case, and the cases that it finds."""
    found = defaultdict(set)
    for name in names:
        parts = re.findall(r"[^\W\d_]+|\d+|[\W_]", name)
        for first in range(len(parts)):
            for last in range(first, len(parts)):
                case = "".join(parts[first : last + 1])
                if "/" in case or not (case[0].isalnum() and case[-1].isalnum()):
                    continue
                before, after = "".join(parts[:first]), "".join(parts[last + 1 :])
                found[f"{before}{{case}}{after}"].add(case)
    most = sorted(found, key=lambda pattern: len(found[pattern]), reverse=True)[:MOST_PATTERNS]
    return {pattern: found[pattern] for pattern in most}
