"""A card for a folder of scans, proposed from what is seen there.

What cannot be seen (license, citation; sometimes names and modality) is marked by a comment.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from catnet.data.card import Card
from catnet.data.labels import (
    NUMBERS,
    check_pair,
    distinct,
    is_seg,
    label_files,
    read_numbers,
    whole_numbers,
)
from catnet.data.layouts import Layout, find_layout
from catnet.data.sources import raw_cases
from catnet.data.volume import ScanFile, read_volume, standard_grid
from catnet.errors import UserError
from catnet.strict import check, parse_yaml

ORIENTATION = "LAS"
LARGEST = 256  # voxels in the plane of a proposed card
AIR = -500  # only CT goes so far below 0


@dataclass
class Seen:
    """What the cases that were looked at have in common, and in what they differ."""

    orientations: Counter = field(default_factory=Counter)
    spacings: list = field(default_factory=list)
    extents: list = field(default_factory=list)
    ranges: list = field(default_factory=list)
    modalities: Counter = field(default_factory=Counter)
    cases: Counter = field(default_factory=Counter)  # by label number or organ
    voxels: Counter = field(default_factory=Counter)
    bad: list = field(default_factory=list)
    odd: list = field(default_factory=list)  # what was read, and is worth a look


class Proposal:
    """A card in the making; raises `UserError` where nothing in `folder` pairs up."""

    def __init__(self, folder: Path, *, name: str) -> None:
        self.folder, self.name, self.seen = folder, name, Seen()
        self.layout = find_layout(folder)
        self.draft = draft(self.layout, name)
        self.pairs = raw_cases(self.draft, folder)

    def look_at(self, most: int) -> Iterator[tuple[str, int, bool]]:
        """Look at up to `most` images; yields (case, number of cases, True).

        Where the layout names no organs, the labels of all cases are read.
        """
        chosen = list(self.pairs)[:: max(1, math.ceil(len(self.pairs) / most))]
        cases = chosen if self.layout.organs else list(self.pairs)
        for case in cases:
            try:
                look(self.seen, self.draft, *self.pairs[case], with_image=case in chosen)
            except UserError as error:
                self.seen.bad.append(str(error))
            yield case, len(cases), True

    def write(self) -> str:
        """The card as YAML; raises `UserError` where no case could be read."""
        if not self.seen.spacings or not self.seen.cases:
            empty = f"{self.folder}: its labels are empty; give some that show an organ"
            raise UserError(self.seen.bad[0] if self.seen.bad else empty)
        total = len(self.pairs)
        text = write_card(self.layout, self.seen, name=self.name, folder=self.folder, total=total)
        check(Card, parse_yaml(text), source="the proposed card")
        return text


def draft(layout: Layout, name: str) -> Card:
    """A card that finds the cases, before anything else is known."""
    content = {
        "name": name,
        "title": "draft",
        "source": "",
        "license": "",
        "citation": "",
        "modality": "MR",
        "image": layout.image,
        "label": layout.label,
        "orientation": ORIENTATION,
        "spacing": (None, None, None),
        "clip": {"percentiles": (0, 100)},
        "size": (32, 32),
        "organs": layout.organs or {"label 1": 1},
        "supervoxels": {"min_size": 1},
        "folds": 2,
    }
    return check(Card, content, source=f"what was found ({layout.kind})")


def look(seen: Seen, card: Card, image: Path, label: Path, *, with_image: bool) -> None:
    """Add one case to what was seen."""
    drawn = label.is_dir() or is_seg(label)  # on the slices of its scan
    scan = read_volume(image) if with_image or drawn else None
    if with_image:
        grid = standard_grid(scan.grid, orientation=ORIENTATION, spacing=(None,) * 3)
        seen.orientations["".join(nib.aff2axcodes(scan.grid.affine))] += 1
        seen.spacings.append(grid.spacing)
        seen.extents.append(np.array(grid.shape) * grid.spacing)
        some = scan.voxels[::2, ::2, ::2]
        seen.ranges.append(np.percentile(some, [0, 0.5, 99.5, 100]))
        seen.modalities[scan.modality] += 1
    for organ, path in label_files(card, label).items():
        truth, names = read_truth(path, scan)
        counts = count(truth, names, path=path)
        if with_image:
            compare(seen, scan, truth, image=image, label=path)
        if organ:
            counts = {organ: sum(counts.values())} if counts else {}
        for what, voxels in counts.items():
            seen.cases[what] += 1
            seen.voxels[what] += voxels


def compare(seen: Seen, scan: ScanFile, truth: ScanFile, *, image: Path, label: Path) -> None:
    """Note a label that does not lie on its image's grid."""
    try:
        check_pair(scan, truth, image=image, label=label, option="--resample-labels")
    except UserError as error:
        seen.odd.append(str(error))


def read_truth(path: Path, scan: ScanFile | None) -> tuple[ScanFile, dict[int, str]]:
    """A label volume, the PNG masks of a scan, or a DICOM SEG with the names of its segments."""
    if scan is None:
        return read_volume(path), {}
    if not (path.is_dir() and any(path.glob("[!.]*.png"))):
        return read_numbers(path, scan=scan)
    from catnet.data.png import read_png_masks

    return read_png_masks(path, scan), {}


def count(truth: ScanFile, names: Mapping[int, str], *, path: Path) -> dict[int | str, int]:
    """Voxels of every number of a label but 0, by its name where it has one.

    Raises `UserError` for a number that none can have.
    """
    found = Counter()
    for z in range(truth.voxels.shape[2]):
        plane = whole_numbers(truth.voxels[..., z], path=path)
        for number in distinct(plane):
            if not 0 <= number < NUMBERS:
                raise UserError(f"{path}: holds {number}, and labels are 1 to 65535; mend it")
            if number:
                found[names.get(number, number)] += int((plane == number).sum())
    return dict(found)


def write_card(layout: Layout, seen: Seen, *, name: str, folder: Path, total: int) -> str:
    """The card as YAML with comments."""
    spacing = np.median(seen.spacings, axis=0)
    wide, high = np.max(seen.extents, axis=0)[:2]
    plane = max(float(spacing[:2].mean()), max(wide, high) / LARGEST)
    in_plane = math.ceil(round(plane * 100, 2)) / 100  # headers say 1.2500001 for 1.25
    spacing = [in_plane] * 2 + [round(float(spacing[2]), 2)]
    size = [32 * max(1, math.ceil(round(mm / spacing[0]) / 32)) for mm in (wide, high)]
    low, bottom, top, peak = np.median(seen.ranges, axis=0)
    modality, why = choose_modality(layout, seen, low=low)
    computed = modality == "CT"
    clip = "{window: [-125, 275]}" if computed else "{percentiles: [0, 99.5]}"
    tall = np.array(seen.spacings)[:, 2]
    cases = f"{total} cases" if len(seen.spacings) == total else f"{len(seen.spacings)} of {total}"
    lines = [
        f"# proposed by `catnet cards new`: {layout.kind}, {total} cases",
        *(f"# could not be read: {one_line(sentence)}" for sentence in seen.bad[:8]),
        *(f"# please check: {one_line(sentence)}" for sentence in seen.odd[:8]),
        f"name: {name}",
        *origin_lines(layout, folder),
        f"modality: {modality}{why}",
        f"image: {scalar(layout.image)}",
        f"label: {scalar(layout.label)}",
        f"# stored as {', '.join(f'{key} ({n})' for key, n in seen.orientations.most_common(6))}",
        f"orientation: {ORIENTATION}",
        f"# of {cases}: {' x '.join(f'{mm:.4g}' for mm in np.median(seen.spacings, axis=0))} mm "
        f"in the middle, slices {tall.min():.4g} to {tall.max():.4g} mm apart",
        f"spacing: {spacing}",
        f"# intensities {low:.6g} to {peak:.6g}, most of them {bottom:.6g} to {top:.6g}",
        f"clip: {clip}" + ("  # soft tissue; widen it for lungs or bones" if computed else ""),
        *([f"body_threshold: {AIR}"] if computed and low < AIR else []),
        f"size: {size}",
        *organ_lines(layout, seen),
        f"supervoxels: {{min_size: {max(10, round(5000 * size[0] * size[1] / LARGEST**2))}}}",
        f"folds: {choose_folds(total)}",
    ]
    return "\n".join(lines) + "\n"


def origin_lines(layout: Layout, folder: Path) -> list[str]:
    """Title, source, license and citation: as the folder's description says, or to be completed."""
    unknown = {
        "title": (folder.name, "what it shows, how many cases"),
        "source": ("unknown", "where it is from"),
        "license": ("unknown", "before you share anything made of it"),
        "citation": ("unknown", "what to cite"),
    }
    return [
        f"{key}: {scalar(layout.said[key])}  # as dataset.json says; please check"
        if key in layout.said
        else f"{key}: {scalar(text)}  # please complete: {what}"
        for key, (text, what) in unknown.items()
    ]


def choose_modality(layout: Layout, seen: Seen, *, low: float) -> tuple[str, str]:
    """CT or MR, and a comment where that was guessed."""
    said = layout.modality or next((m for m in ("CT", "MR") if seen.modalities[m]), "")
    if said:
        return said, ""
    return ("CT" if low < AIR else "MR"), "  # guessed from the intensities; please check"


def organ_lines(layout: Layout, seen: Seen) -> list[str]:
    """The organs, and how often each was seen."""
    apart = "{organ}" in layout.label
    names = dict(layout.organs)
    known = set(names if apart else names.values())
    others = [key for key in seen.cases if key not in known]
    for number in sorted(key for key in others if isinstance(key, int)):
        names[f"label {number}"] = number
    segments = sorted(key for key in others if isinstance(key, str) and not apart)
    names |= {name: number for number, name in enumerate(segments, start=1)}
    guessed = "" if layout.organs or segments else "  # please give them names"
    lines = [f"organs:{guessed}"]
    for organ, number in names.items():
        key = organ if apart or organ in segments else number
        amount = f"in {seen.cases[key]} cases, {seen.voxels[key]} voxels"
        lines.append(f"  {scalar(organ)}: {number}  # {amount}")
    return lines


def choose_folds(total: int) -> str:
    """Five folds, or as many as the cases allow: each is a query once, the next one supports it."""
    if total >= 4:
        return str(min(5, total // 2))
    if total == 1:
        return "[[0, 1], [1, 0]]  # a question needs two cases; add one before you train"
    return str([[case, (case + 1) % total] for case in range(total)])


def one_line(sentence: str) -> str:
    """A sentence for a comment, its line breaks gone."""
    return " ".join(sentence.encode(errors="replace").decode().split())


def scalar(text: str) -> str:
    """A text as YAML writes it on one line."""
    text = text.encode(errors="replace").decode()
    if not text.isprintable():
        return yaml.safe_dump(text, default_style='"', width=10_000).strip()
    plain = yaml.safe_dump(text, allow_unicode=True, width=10_000).splitlines()[0]
    return plain if re.match(r"[\w'\"]", plain) else f'"{plain}"'
