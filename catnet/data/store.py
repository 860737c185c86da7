"""Prepared cases on disk: memory-mapped arrays, opened when they are read.

$CATNET_DATA/CARD/CASE/image.npy        float32 (d, h, w), z-scored
                      /label.npy        uint16  (d, h, w), the card's numbers
                      /meta.json        both grids, hashes, organ pixels a slice
                      /supervoxels.npy  uint16  (d, h, w), pseudo-labels, 0 is none
                      /supervoxels.json their settings, pixels a slice
"""

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from catnet import strict
from catnet.arrays import LabelVolume, Volume
from catnet.data.card import Card
from catnet.data.volume import Grid
from catnet.errors import UserError, writing
from catnet.files import file_hash, is_alive
from catnet.paths import data_home
from catnet.strict import Strict, check

META, SUPERVOXELS = "meta.json", "supervoxels.json"
KINDS = {
    "image": np.dtype(np.float32),
    "label": np.dtype(np.uint16),
    "supervoxels": np.dtype(np.uint16),
}
Count = Annotated[int, Field(ge=1)]
Row = tuple[float, float, float, float]


class Meta(Strict):
    """What is known of a prepared case. Grids are in (x, y, z), the arrays in (z, y, x)."""

    case: str = Field(pattern=r"^[^/.][^/]*$")
    preparation: str
    sources: dict[str, str]
    shape: tuple[Count, Count, Count]
    affine: tuple[Row, Row, Row, Row]
    spacing: tuple[float, float, float]
    raw_shape: tuple[Count, Count, Count]
    raw_affine: tuple[Row, Row, Row, Row]
    pixels: dict[str, tuple[int, ...]]
    remarks: tuple[str, ...] = ()
    resampled: bool = False  # the label lay on another grid, and was allowed to
    arrays: dict[str, str] = Field(default_factory=dict)  # hashes of files; older cases lack them

    @field_validator("affine", "raw_affine")
    @classmethod
    def of_a_place(cls, affine: tuple) -> tuple:
        """Three directions that span the world."""
        if np.linalg.matrix_rank(np.array(affine)) < 4:
            raise ValueError("maps voxels to no place; prepare the case again")
        return affine

    @property
    def grid(self) -> Grid:
        """Where the prepared voxels lie."""
        depth, height, width = self.shape
        return Grid((width, height, depth), np.array(self.affine))

    @property
    def raw_grid(self) -> Grid:
        """Where the scanner's voxels lie."""
        return Grid(self.raw_shape, np.array(self.raw_affine))


class SupervoxelMeta(Strict):
    """How supervoxels were cut, and the pixels of each in every slice: (slices, supervoxels)."""

    min_size: int
    pixels: tuple[tuple[int, ...], ...]
    array: str = ""  # the hash of its file, as in `Meta`


@dataclass(frozen=True)
class Case:
    """A prepared case; nothing is read before it is asked for."""

    folder: Path

    @cached_property
    def meta(self) -> Meta:
        """Grids, hashes and organ pixels."""
        return check(Meta, read_json(self.folder / META), source=str(self.folder / META))

    @property
    def name(self) -> str:
        """The case as the data set calls it."""
        return self.meta.case

    @property
    def depth(self) -> int:
        """Number of slices."""
        return self.meta.shape[0]

    @property
    def image(self) -> Volume:
        """Z-scored intensities, memory-mapped."""
        return self.array("image")

    @property
    def label(self) -> LabelVolume:
        """The card's label numbers, memory-mapped."""
        return self.array("label")

    @property
    def supervoxels(self) -> LabelVolume:
        """Pseudo-labels, memory-mapped; 0 belongs to no supervoxel."""
        return self.array("supervoxels")

    @cached_property
    def supervoxel_meta(self) -> SupervoxelMeta:
        """Settings and pixel counts of the supervoxels; raises `UserError` where there are none."""
        path = self.folder / SUPERVOXELS
        if not path.is_file():
            card = self.folder.parent.name
            raise UserError(f"{self.folder}: has no supervoxels; run `catnet supervoxels {card}`")
        return check(SupervoxelMeta, read_json(path), source=str(path))

    def array(self, name: str) -> np.ndarray:
        """A memory-mapped array of the case, as its description says; else raises `UserError`."""
        path = self.folder / f"{name}.npy"
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError, SyntaxError, MemoryError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(
                f"{path}: cannot be read ({why}); delete its folder and prepare the case again"
            ) from None
        kind = getattr(found, "dtype", None)  # of an archive there is none
        if kind != KINDS[name] or found.shape != self.meta.shape:
            raise UserError(
                f"{path}: holds {kind} of {getattr(found, 'shape', 'no shape')}, {META} says "
                f"{KINDS[name]} of {self.meta.shape}; delete its folder and prepare the case again"
            )
        return found

    def check_content(self, *names: str) -> None:
        """Read arrays; raises `UserError` for one that is not what was once written."""
        for name in names:
            cut = name == "supervoxels"
            known = self.supervoxel_meta.array if cut else self.meta.arrays.get(name, "")
            path = self.folder / f"{name}.npy"
            self.array(name)  # says what else is wrong with it
            if known and known != file_hash(path):
                raise UserError(
                    f"{path}: holds other values than were written; delete its folder and prepare "
                    "the case again"
                )


def case_folder(card: Card, case: str) -> Path:
    """Folder of a prepared case."""
    return data_home() / card.name / case


def open_cases(card: Card, *, damaged: dict[str, str] | None = None) -> tuple[Case, ...]:
    """All prepared cases of a card, sorted by number; raises `UserError` where there are none.

    Those whose description cannot be read are an error, too, or go into `damaged`: what is wrong,
    by folder.
    """
    folder = data_home() / card.name
    found = prepared_cases(card)
    for case in list(found) if damaged is not None else ():
        try:
            _ = case.meta
        except UserError as error:
            damaged[case.folder.name] = str(error)
            found.remove(case)
    if not found and not damaged:
        raise UserError(
            f"{folder}: no prepared case; run `catnet prepare {card.name} --raw DIR` first"
        )
    stale = [case.name for case in found if case.meta.preparation != card.preparation()]
    if stale:
        raise UserError(
            f"{folder}: case {stale[0]} was prepared by another version of the card; run "
            f"`catnet prepare {card.name} --raw DIR` again"
        )
    return tuple(sorted(found, key=lambda case: natural(case.name)))


def prepared_cases(card: Card) -> list[Case]:
    """What lies in the card's folder, whatever it was prepared from."""
    return [Case(path.parent) for path in (data_home() / card.name).glob(f"[!.]*/{META}")]


def natural(name: str) -> tuple:
    """Sort key that puts case 2 before case 10."""
    parts = re.split(r"(\d+)", name)
    numbered = tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)
    return (*numbered, (1, 0, name))  # 1 and 01 are two cases, in a fixed order


def read_json(path: Path) -> dict:
    """A JSON object; raises `UserError` where there is none."""
    try:
        content = strict.read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); prepare the case again") from None
    return content if isinstance(content, dict) else {}


def write_folder(folder: Path, arrays: Mapping[str, np.ndarray], meta: Meta) -> None:
    """Write a case beside its place, then move it there: there is never half a case."""
    temporary = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    with writing(folder):
        try:
            temporary.mkdir(parents=True)
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            written = {name: file_hash(temporary / f"{name}.npy") for name in arrays}
            described = meta.model_copy(update={"arrays": written}).model_dump_json()
            (temporary / META).write_text(described, encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def clear_leftovers(folder: Path, *, begin: str = ".") -> None:
    """Remove what processes that were killed left in a folder: `.CASE-PID`, or `BEGIN...-PID`."""
    for path in folder.glob(f"{begin}*-*"):
        pid = path.name.rpartition("-")[2]
        if path.is_dir() and pid.isdecimal() and not is_alive(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def write_supervoxels(case: Case, labels: LabelVolume, meta: SupervoxelMeta) -> None:
    """Add pseudo-labels to a case; their description comes last and makes them count."""
    target = case.folder / SUPERVOXELS
    temporary = case.folder / f".{os.getpid()}-supervoxels.npy"
    with writing(target):
        try:
            target.unlink(missing_ok=True)
            np.save(temporary, labels.astype(np.uint16), allow_pickle=False)
            meta = meta.model_copy(update={"array": file_hash(temporary)})
            os.replace(temporary, case.folder / "supervoxels.npy")
            temporary.write_text(meta.model_dump_json(), encoding="utf-8")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
