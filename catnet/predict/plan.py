"""Where the files of queries go: checked before any work, and cleared of what was left undone."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from catnet.errors import UserError
from catnet.files import HOLDER
from catnet.predict.query import Target
from catnet.predict.scans import scan_name

RESULT = r".+_(pred\.(nii\.gz|dcm)|prob_\d+\.nii\.gz(\.raw)?)"
WRITTEN = re.compile(rf"{RESULT}|summary\.(json|csv)|{re.escape(HOLDER)}")


@dataclass(frozen=True)
class Wanted:
    """A query and where its files go."""

    path: Path
    target: Target


def plan_queries(
    paths: Sequence[Path],
    folder: Path,
    *,
    supports: Sequence[Path],
    probability: bool,
    dicom_seg: bool,
    again: bool,
) -> list[Wanted]:
    """Where every query's files go; raises `UserError` before any work where they cannot."""
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise UserError(f"{folder}: no folder that you may write to; choose another one with -o")
    for path in (*paths, *supports):
        check_path(path)
    wanted = [
        Wanted(path, Target(folder, scan_name(path), probability, dicom_seg)) for path in paths
    ]
    seen: dict[str, Path] = {}
    for one in wanted:
        twin = seen.setdefault(one.target.name, one.path)
        if twin is not one.path:
            raise UserError(
                f"{one.path}: would be written to the same file as {twin}; rename one, or give "
                "them different folders with -o"
            )
        check_inputs(one.target, [*paths, *supports])
        there = [] if again else [path for path in one.target.files if path.exists()]
        if there:
            raise UserError(f"{there[0]}: is there already; --again writes it anew")
    return wanted


def check_path(path: Path) -> None:
    """Raise `UserError` for a name that no summary could hold."""
    where = str(path.resolve())
    if not path.name.isprintable() or where.encode(errors="replace").decode() != where:
        raise UserError(f"{where!r}: a name with unreadable letters; rename it")


def check_inputs(target: Target, inputs: Sequence[Path]) -> None:
    """Raise `UserError` where a query's files would take the place of a scan that was given."""
    for path in inputs:
        for place in (path, path.resolve()):
            if place.parent.resolve() == target.folder.resolve() and target.writes(place.name):
                raise UserError(
                    f"{path}: is given, and would be overwritten by the result of {target.name}; "
                    "choose another folder with -o"
                )


@contextmanager
def recorded(wanted: Sequence[Wanted]) -> Iterator[set[str]]:
    """Around the work: what was not there, and does not come into the summary, is taken away."""
    names: set[str] = set()
    folder = wanted[0].target.folder
    there = set(folder.iterdir())
    try:
        yield names
    finally:
        left = [one.target for one in wanted if one.target.name not in names]
        for path in set(folder.iterdir()) - there:
            if any(target.writes(path.name) for target in left):
                path.unlink(missing_ok=True)
