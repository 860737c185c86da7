"""The page of files: an image with label volumes, or what `catnet predict` left in a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from catnet.data.volume import ScanFile, read_volume
from catnet.errors import UserError
from catnet.strict import read_json
from catnet.view.page import Page, Pane
from catnet.view.volumes import pack_image, pack_labels, steps

SUMMARY = "summary.json"
MOST_ORGANS = 255  # that 8 bits can tell apart
NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Pair:
    """An image and label volumes of it."""

    image: Path
    labels: tuple[Path, ...]


@dataclass(frozen=True)
class Query:
    """What a summary says of one query: its mask, its supports by name, organs, and more in words.

    A support whose label the summary does not name has none to show.
    """

    pair: Pair
    supports: dict[str, Pair]
    organs: dict[int, str]
    notes: tuple[str, ...]


def read_prediction(folder: Path) -> dict[str, Query]:
    """The queries of a summary; raises `UserError` where it is missing, damaged or names none."""
    path = folder / SUMMARY
    try:
        content = read_json(path)
        queries = {name: read_query(folder, record) for name, record in content.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path}: no readable summary of predictions ({why}); give a folder that `catnet "
            "predict` wrote, or an image and its label: `catnet view IMAGE LABEL`"
        ) from None
    if not queries:
        raise UserError(f"{path}: names no query; run `catnet predict` again")
    return queries


def read_query(folder: Path, record: Mapping) -> Query:
    """One record of a summary; raises `KeyError` or `TypeError` where it is another thing."""
    supports = {}
    for entry in record["supports"]:
        image, label = (
            (entry["image"], entry.get("label")) if isinstance(entry, dict) else (entry, None)
        )
        labels = () if label is None else (find(folder, label),)
        supports[stem(Path(image))] = Pair(find(folder, image), labels)
    model = record.get("model")
    said = [] if model is None else [f"Model: {model}."]
    sizes = [describe_organ(organ) for organ in record["organs"] if "volume_ml" in organ]
    said += [f"Predicted {'; '.join(sizes)}."] if sizes else []
    return Query(
        Pair(find(folder, record["query"]), (find(folder, record["label"]),)),
        supports,
        {int(organ["number"]): str(organ["name"]) for organ in record["organs"]},
        (*said, *map(str, record.get("warnings", ()))),
    )


def describe_organ(organ: Mapping) -> str:
    """Volume and confidence of an organ, in words."""
    sure = organ.get("confidence")
    tail = "" if sure is None else f", mean probability {sure:.2f}"
    return f"{organ['name']}: {float(organ['volume_ml']):.1f} ml{tail}"


def find(folder: Path, name: str) -> Path:
    """A file of a summary: in its folder, or from where the command was called."""
    inside = folder / name
    return inside if inside.exists() else Path(name)


def view_prediction(
    folder: Path, *, case: str | None, support: str | None, organ: str | None
) -> Page:
    """The page of one query of a folder, beside its support; the first ones without names."""
    queries = read_prediction(folder)
    query = queries[choose(queries, case, option="--case")]
    beside = None
    if support is not None or query.supports:
        beside = query.supports[choose(query.supports, support, option="--support")]
    return view_files(
        query.pair, support=beside, names=query.organs, organ=organ, notes=query.notes
    )


def choose(known: Mapping[str, object], name: str | None, *, option: str) -> str:
    """The first name, or the one asked for; raises `UserError` where it is not there."""
    if name is None:
        return next(iter(known))
    if name not in known:
        raise UserError(f"{option} {name!r} is not there; there are {', '.join(known) or 'none'}")
    return name


def view_files(
    query: Pair,
    *,
    support: Pair | None = None,
    names: Mapping[int, str],
    organ: str | None,
    notes: tuple[str, ...] = (),
) -> Page:
    """The page of an image with its label volumes, and of a support beside it."""
    volumes = {path: read_labels(path) for pair in (query, support) if pair for path in pair.labels}
    numbers = sorted({number for volume in volumes.values() for number in shown(volume)})
    labels = dict(names) or {number: f"label {number}" for number in numbers}
    if organ is not None:
        labels = {n: name for n, name in labels.items() if organ in {name, str(n)}}
    if not labels:
        known = ", ".join(names.values() or map(str, numbers)) or "none"
        raise UserError(f"--organ {organ or 'all'} is in none of the labels; they show {known}")
    if len(labels) > MOST_ORGANS:
        raise UserError(
            f"{query.labels[0]}: shows {len(labels)} labels, a page {MOST_ORGANS} at most; "
            "choose one with --organ"
        )
    places = {number: place for place, number in enumerate(labels, start=1)}
    panes = [file_pane("query" if support else "image", query, volumes, places=places)]
    if support is not None:
        panes.append(file_pane("support", support, volumes, places=places))
    return Page(
        title=f"{stem(query.image)}: {', '.join(layer.name for layer in panes[0].layers)}",
        notes=(*notes, *describe(query, volumes)),
        organs=tuple(labels.values()),
        panes=tuple(panes),
    )


def read_labels(path: Path) -> ScanFile:
    """A label volume; raises `UserError` where it holds no whole numbers."""
    volume = read_volume(path)
    if not np.array_equal(volume.voxels, np.rint(volume.voxels)):
        raise UserError(f"{path}: is no label volume, its values are not whole; swap the files?")
    return volume


def shown(volume: ScanFile) -> list[int]:
    """The label numbers of a volume, without the background."""
    return [int(number) for number in np.unique(volume.voxels) if number]


def file_pane(
    role: str, pair: Pair, volumes: Mapping[Path, ScanFile], *, places: Mapping[int, int]
) -> Pane:
    """An image and its labels, each file a layer; it opens in the middle of the first label."""
    layers = [
        pack_labels(layer_name(path, pair.labels), volumes[path], numbers=places)
        for path in pair.labels
    ]
    return Pane(
        title=f"{role} {stem(pair.image)}",
        image=pack_image(read_volume(pair.image)),
        layers=tuple(layers),
        middle=middle_of(volumes[pair.labels[0]], list(places)) if pair.labels else None,
    )


def layer_name(path: Path, others: Sequence[Path]) -> str:
    """The file's name without its ending, with its folder where two files are called the same."""
    alike = sum(stem(path) == stem(other) for other in others) > 1
    return f"{path.parent.name}/{stem(path)}" if alike else stem(path)


def middle_of(volume: ScanFile, numbers: Sequence[int]) -> tuple[float, float, float] | None:
    """World place of a voxel near the middle of the first label; None where there is none."""
    shows = next((number for number in numbers if (volume.voxels == number).any()), None)
    if shows is None:
        return None
    found = np.argwhere(volume.voxels == shows)
    inside = found[np.linalg.norm(found - found.mean(axis=0), axis=1).argmin()]
    x, y, z = nib.affines.apply_affine(volume.grid.affine, inside).tolist()
    return x, y, z


def describe(query: Pair, volumes: Mapping[Path, ScanFile]) -> list[str]:
    """Where the labels lie, and what of the files one should know."""
    grid = volumes[query.labels[0]].grid
    size = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{mm:.3g}" for mm in grid.spacing)
    every = steps(grid.shape)
    kept = "every voxel" if every == (1, 1, 1) else f"1 voxel in {' x '.join(map(str, every))}"
    return [f"{query.labels[0].name}: {size} voxels of {spacing} mm. The page holds {kept}."]


def stem(path: Path) -> str:
    """A file's name without `.nii.gz` or any other ending."""
    ending = next((e for e in NIFTI if path.name.endswith(e)), path.suffix)
    return path.name[: len(path.name) - len(ending)] if ending else path.name
