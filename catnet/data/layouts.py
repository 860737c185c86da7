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

from catnet.data.labels import SEG, opening
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
    said: dict[str, str] = field(default_factory=dict)  # title, source, license of its description


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
        organs = read_organs(path, labels)
        first = str(channels.get("0", "")).lower()
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"{path}: names no labels and channels ({why}); mend it") from None
    ending = str(said.get("file_ending") or ".nii.gz")
    if not re.fullmatch(r"(\.[A-Za-z0-9]+)+", ending):
        raise UserError(f"{path}: file_ending {ending[:40]!r} is none, such as .nii.gz; mend it")
    numbered = any(folder.glob(f"imagesTr/[!.]*_0000{ending}"))
    return Layout(
        "nnU-Net v2" if numbered else "Medical Segmentation Decathlon",
        f"imagesTr/{{case}}{'_0000' if numbered else ''}{ending}",
        f"labelsTr/{{case}}{ending}",
        organs,
        CHANNELS.get(re.split(r"[^a-z0-9]", first)[0], ""),
        read_words(said),
    )


def read_words(said: dict) -> dict[str, str]:
    """What a description says of title, license and origin, each on one line."""
    words = {
        "title": said.get("description") or said.get("name"),
        "source": said.get("reference"),
        "license": said.get("licence") or said.get("license"),
        "citation": said.get("reference"),
    }
    return {
        key: " ".join(text.split())
        for key, text in words.items()
        if isinstance(text, str) and text.strip()
    }


def read_organs(path: Path, labels: dict) -> dict[str, int]:
    """Organs and their numbers; a region of several labels is none of its own.

    Raises `UserError` where a number is none, or stands for two organs.
    """
    plain = {str(name): number for name, number in labels.items() if not isinstance(number, list)}
    if all(name.isdecimal() for name in plain):  # the Decathlon turns them round
        plain = {str(name): number for number, name in plain.items()}
    organs = {name: label_number(path, name, number) for name, number in plain.items()}
    organs = {name: number for name, number in organs.items() if number}
    for name, number in organs.items():
        twin = next(other for other, its in organs.items() if its == number)
        if twin != name:
            raise UserError(f"{path}: labels {twin!r} and {name!r} are both {number}; mend it")
    return organs


def label_number(path: Path, name: str, number: object) -> int:
    """A number of `labels`; raises `UserError` where it is no whole one from 0 to 65535."""
    text = str(number) if isinstance(number, int | str) and not isinstance(number, bool) else ""
    if not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        said = repr(number)
        raise UserError(
            f"{path}: label {name!r} is {said[:20]}, which is no whole number from 0 to 65535; "
            "mend it"
        )
    return int(text)


def paired(folder: Path) -> Layout:
    """The patterns that pair most images with labels, by a part of their names."""
    found = list(islice(scans(folder), MOST_LOOKED_AT))
    labels = [name for name in found if is_label(name) or is_seg_file(folder / name)]
    images = sorted(set(found) - set(labels))
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
    """Volumes, DICOM SEG, and folders of DICOM slices or of PNG masks, relative to `folder`."""
    seen = set()
    for path in sorted(folder.rglob("[!.]*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if name.lower().endswith(VOLUMES) or is_seg_file(path):
            yield readable(folder, name)
        elif path.parent not in seen and path.parent != folder:
            seen.add(path.parent)
            if path.suffix.lower() == ".png" or opening(path):
                yield readable(folder, path.parent.relative_to(folder).as_posix())


def readable(folder: Path, name: str) -> str:
    """`name`; raises `UserError` for one that no card can hold."""
    if not name.isprintable() or "{case}" in name or "{organ}" in name:
        raise UserError(
            f"{folder}: {name!r} has unreadable letters, or holds a word of cards; rename it"
        )
    return name


def is_seg_file(path: Path) -> bool:
    """Whether a file is a DICOM segmentation, which is a label whatever its name is."""
    return path.is_file() and SEG in opening(path)


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
