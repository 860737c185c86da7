"""One query from its file to its files: prepare, segment, pull back, fuse, write, sum up."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer
from nibabel.nifti1 import Nifti1Header
from numpy import ndarray

from catnet.errors import UserError
from catnet.evaluate.cases import Fused
from catnet.predict.dicom_seg import read_series, write_segmentation
from catnet.predict.geometry import Piece, Way, pull_back, way_back
from catnet.predict.likeness import differences
from catnet.predict.scans import Prepared, prepare_scan
from catnet.predict.session import Session, probabilities
from catnet.predict.write import label_type, probability_file, query_header, write_labels

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Target:
    """Where the files of one query go, and which are wanted."""

    folder: Path
    name: str
    probability: bool = False
    dicom_seg: bool = False

    @property
    def label(self) -> Path:
        """The label volume."""
        return self.folder / f"{self.name}_pred.nii.gz"

    @property
    def seg(self) -> Path:
        """The DICOM segmentation."""
        return self.folder / f"{self.name}_pred.dcm"

    @property
    def files(self) -> tuple[Path, ...]:
        """What may not be there before, as far as it is known without the organs."""
        return (self.label, self.seg) if self.dicom_seg else (self.label,)

    def writes(self, name: str) -> bool:
        """Whether a file of the folder is one of this query's."""
        chances = re.escape(self.name) + r"_prob_\d+\.nii\.gz"
        return name in {path.name for path in self.files} or bool(
            self.probability and re.fullmatch(chances, name)
        )

    def chance(self, number: int) -> Path:
        """The probability of one organ."""
        return self.folder / f"{self.name}_prob_{number}.nii.gz"


@dataclass
class Tally:
    """What was found of every organ, by its place in the session."""

    voxels: Integer[ndarray, " n"]
    certainty: Float[ndarray, " n"]
    slices: Integer[ndarray, " n"]

    def add(self, fused: Fused, numbers: list[int]) -> None:
        """Count the fused slices."""
        for label, best in zip(fused.label, fused.best, strict=True):
            places = np.searchsorted(np.sort(numbers), label[label > 0])
            found = np.argsort(numbers)[places]
            counts = np.bincount(found, minlength=len(numbers))
            self.voxels += counts
            self.slices += counts > 0
            self.certainty += np.bincount(found, best[label > 0], minlength=len(numbers))


@dataclass
class Canvas:
    """The label volume of a query while it fills, and its probabilities where they are wanted."""

    labels: Integer[ndarray, "x y z"]
    numbers: list[int]
    tally: Tally
    chances: dict[int, ndarray] = field(default_factory=dict)

    def fill(self, way: Way, pieces: Iterable[Piece], watch: Watch) -> None:
        """Fuse slab after slab: the most probable organ above one half, else background."""
        view = self.labels.transpose(way.order)
        done = 0
        for piece in pieces:
            if piece.organ == 0:
                fused = Fused.empty(piece.probability.shape)
            number = self.numbers[piece.organ]
            fused.add(number, piece.probability, list(range(len(piece.slices))))
            if number in self.chances:
                self.chances[number].transpose(way.order)[piece.slices] = piece.probability
            if piece.organ == len(self.numbers) - 1:
                view[piece.slices] = fused.label
                self.tally.add(fused, self.numbers)
                done += len(piece.slices)
                watch(done, len(view))


def predict_query(session: Session, path: Path, target: Target, watch: Watch) -> dict:
    """Segment one scan and write its files; gives what the summary says of it.

    `watch` is told of finished and of all slices. Raises `UserError` where the scan cannot be used.
    """
    query = prepare_scan(session.card, path)
    series = find_series(path, query) if target.dicom_seg else []
    header = query_header(path)
    supports = [shot.prepared for shot in session.shots]
    said = [*query.remarks, *(sentence for shot in supports for sentence in shot.remarks)]
    warnings = [*dict.fromkeys(said), *differences(query, supports, card=session.card)]
    with all_or_none([*target.files, *map(target.chance, session.organs)]):
        canvas = draw(session, query, target, header, watch)
        write_labels(target.label, canvas.labels, query.scan, header)
        if target.dicom_seg:
            write_segmentation(target.seg, series, canvas.labels, query.scan, organs=session.organs)
    organs = organ_lines(canvas.tally, query, session.organs)
    warnings += [f"nothing was found of {one['name']}" for one in organs if not one["slices"]]
    return {
        "query": str(path.resolve()),
        "label": target.label.name,
        "model": session.model.name,
        "supports": [
            {"image": str(shot.prepared.path.resolve()), "label": str(shot.source.resolve())}
            for shot in session.shots
        ],
        "organs": organs,
        "warnings": warnings,
    }


@contextmanager
def all_or_none(paths: list[Path]) -> Iterator[None]:
    """Around the writing of several files: where one cannot be written, no other is left."""
    there = {path for path in paths if path.exists()}
    try:
        yield
    except BaseException:
        for path in set(paths) - there:
            path.unlink(missing_ok=True)
        raise


def draw(
    session: Session,
    query: Prepared,
    target: Target,
    header: Nifti1Header | None,
    watch: Watch,
) -> Canvas:
    """The whole query, slab by slab."""
    numbers, shape = list(session.organs), query.scan.shape
    nothing = Tally(*(np.zeros(len(numbers), kind) for kind in (np.int64, np.float64, np.int64)))
    labels = np.zeros(shape, label_type(numbers), order="F")
    canvas = Canvas(labels, numbers, nothing)
    way = way_back(query.grid, query.scan)
    with ExitStack() as files:
        for number in numbers if target.probability else ():
            canvas.chances[number] = files.enter_context(
                probability_file(target.chance(number), query.scan, header)
            )
        canvas.fill(way, pull_back(way, probabilities(session, query.image)), watch)
    return canvas


def organ_lines(tally: Tally, query: Prepared, organs: Mapping[int, str]) -> list[dict]:
    """Volume (ml), mean probability inside of the mask, and slices of every organ."""
    milliliters = abs(np.linalg.det(query.scan.affine[:3, :3])) / 1000
    return [
        {
            "number": number,
            "name": name,
            "volume_ml": round(float(voxels * milliliters), 3),
            "confidence": round(float(certainty / voxels), 4) if voxels else None,
            "slices": int(slices),
        }
        for (number, name), voxels, certainty, slices in zip(
            organs.items(), tally.voxels, tally.certainty, tally.slices, strict=True
        )
    ]


def find_series(path: Path, query: Prepared) -> list:
    """The DICOM slices of a query; raises `UserError` where it has none."""
    if not path.is_dir():
        raise UserError(
            f"{path}: --dicom-seg refers to the slices of a DICOM series, and this is none; give "
            "the folder of the series, or leave --dicom-seg out"
        )
    return read_series(path, query.scan)
