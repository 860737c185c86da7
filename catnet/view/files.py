"""The page of files: an image with label volumes, or what `catnet predict` left in a folder."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import nibabel as nib
import numpy as np

from catnet.data.volume import ScanFile
from catnet.errors import UserError
from catnet.strict import read_json
from catnet.view.page import Page, Pane
from catnet.view.pairs import Opened, Pair, read_pair, shown
from catnet.view.volumes import pack_image, pack_labels, steps

SUMMARY = "summary.json"
MOST_ORGANS = 255  # that 8 bits can tell apart
NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class Query:
    """What a summary says of one query: its mask, its supports by name, organs, and more in words.

    A support whose label the summary does not name has none to show.
    """

    pair: Pair
    supports: dict[str, Pair]
    organs: dict[int, str]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


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
        supports[unique(stem(Path(image)), supports)] = Pair(find(folder, image), labels)
    model = record.get("model")
    said = [] if model is None else [f"Model: {model}."]
    sizes = [describe_organ(organ) for organ in record["organs"] if "volume_ml" in organ]
    said += [f"Predicted {'; '.join(sizes)}."] if sizes else []
    return Query(
        Pair(find(folder, record["query"]), (find(folder, record["label"]),)),
        supports,
        {int(organ["number"]): str(organ["name"]) for organ in record["organs"]},
        tuple(said),
        tuple(map(str, record.get("warnings", ()))),
    )


def unique(name: str, others: Container[str]) -> str:
    """`name`, or `name (2)` and so on where it is taken."""
    numbered = (f"{name} ({number})" if number > 1 else name for number in count(1))
    return next(one for one in numbered if one not in others)


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
        query.pair,
        support=beside,
        names=query.organs,
        organ=organ,
        notes=query.notes,
        warnings=query.warnings,
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
    warnings: tuple[str, ...] = (),
) -> Page:
    """The page of an image with its label volumes, and of a support beside it."""
    pairs = [query] if support is None else [query, support]
    opened = [read_pair(pair) for pair in pairs]
    numbers = sorted({n for one in opened for volume in one.labels.values() for n in shown(volume)})
    if not names and not numbers:
        raise UserError(f"{query.labels[0]}: the label is empty; give one that shows something")
    labels = dict(names) or {n: opened[0].names.get(n, f"label {n}") for n in numbers}
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
    roles = ["image"] if support is None else ["query", "support"]
    panes = [
        file_pane(role, pair, one, places=places)
        for role, pair, one in zip(roles, pairs, opened, strict=True)
    ]
    return Page(
        title=f"{stem(query.image)}: {', '.join(layer.name for layer in panes[0].layers)}",
        notes=(*notes, *describe(query, opened[0].labels)),
        warnings=(*warnings, *(sentence for one in opened for sentence in one.warnings)),
        organs=tuple(labels.values()),
        panes=tuple(panes),
    )


def file_pane(role: str, pair: Pair, opened: Opened, *, places: Mapping[int, int]) -> Pane:
    """An image and its labels, each file a layer; it opens in the middle of the first label."""
    names: list[str] = []
    for path in pair.labels:
        names.append(unique(layer_name(path, pair.labels), names))
    layers = [
        pack_labels(name, opened.labels[path], numbers=places)
        for name, path in zip(names, pair.labels, strict=True)
    ]
    return Pane(
        title=f"{role} {stem(pair.image)}",
        image=pack_image(opened.image),
        layers=tuple(layers),
        middle=middle_of(opened.labels[pair.labels[0]], list(places)) if pair.labels else None,
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
