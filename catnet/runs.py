"""The folder of a run: its settings, its weights, its log.

$CATNET_RUNS/NAME-IDENTITY/run.yml            every setting
                          /card.yml           the data set as it was then
                          /provenance.json    what it ran on
                          /checkpoints/       to go on from
                          /log.jsonl          losses, one line every `log_every` steps
                          /timing.jsonl       seconds an episode, likewise
                          /tensorboard/       scalars and episode pictures
                          /model/             the trained network, for `from_pretrained`
                          /cost.json          what an episode took
                          /replay/            the step that ended it, if one did; `catnet replay`
                          /evaluations/       rows, predictions, pictures, views to browse
"""

import json
import os
import platform
import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import yaml

from catnet.config import Run, digest
from catnet.data.card import Card, load_card
from catnet.data.folds import split
from catnet.data.store import Case
from catnet.errors import UserError
from catnet.files import write_text
from catnet.paths import runs_home
from catnet.question import load_run
from catnet.strict import read_json

SETTINGS, CARD, PROVENANCE = "run.yml", "card.yml", "provenance.json"
LOG, TIMING, COST = "log.jsonl", "timing.jsonl", "cost.json"


@dataclass(frozen=True)
class RunFolder:
    """Where a run lives, and what it is."""

    path: Path
    run: Run
    card: Card

    @property
    def identity(self) -> str:
        """Hash of what decides the trained weights."""
        return self.run.identity(self.card.identity())

    @property
    def model(self) -> Path:
        """Folder of the trained network."""
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        """Folder of steps to compute again."""
        return self.path / "replay"

    @property
    def trained(self) -> bool:
        """Whether training has ended."""
        return (self.model / "model.safetensors").is_file()

    @property
    def begun(self) -> bool:
        """Whether there is anything of a training to go on from."""
        return self.trained or any(self.checkpoints.glob("*.safetensors"))


def find_run_folder(run: Run) -> RunFolder:
    """Where `run` lives, or would live; nothing is written."""
    card = load_card(run.data.card)
    return RunFolder(runs_home() / f"{run.name}-{run.identity(card.identity())}", run, card)


def folders_by_identity() -> dict[str, list[Path]]:
    """The folders in `$CATNET_RUNS` by the identity that their names end with, in order."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(runs_home().glob("*-*")):
        found[path.name.rpartition("-")[2]].append(path)
    return dict(found)


def find_same_run(run: Run, *, known: Mapping[str, Sequence[Path]]) -> RunFolder:
    """As `find_run_folder`, but one with the same identity and another name will do as well.

    `known` are all `folders_by_identity`, which are listed once for many runs.
    """
    folder = find_run_folder(run)
    others = (path for path in known.get(folder.identity, ()) if (path / SETTINGS).exists())
    same = [folder, *(replace(folder, path=path) for path in others)]
    begun = (one for one in same if one.path.is_dir())
    return next((one for one in same if one.trained), next(begun, folder))


def create_run_folder(run: Run) -> RunFolder:
    """The folder of `run`, made where it is not there yet, and left alone where training ended."""
    folder = find_run_folder(run)
    if not folder.trained:
        write_settings(folder)
    return folder


def write_settings(folder: RunFolder) -> None:
    """Write down a run and its card; a folder that has another name keeps the settings it has."""
    path = folder.path / SETTINGS
    if path.is_file() and folder.path.name != f"{folder.run.name}-{folder.identity}":
        return
    write_yaml(folder.path / CARD, folder.card.model_dump(mode="json"))
    write_yaml(path, folder.run.model_dump(mode="json"))


def open_run_folder(path: Path, *, overrides: Sequence[str] = ()) -> RunFolder:
    """A run by its folder, or by that folder's name in `$CATNET_RUNS`.

    `overrides` may change how it is evaluated and where, not what was trained.
    """
    path = path if path.is_dir() else runs_home() / path
    if not (path / SETTINGS).is_file():
        raise UserError(f"{path}: not the folder of a run; `catnet train` prints where a run is")
    run = load_run(path / SETTINGS)
    changed = load_run(path / SETTINGS, overrides)
    copy = path / CARD
    card = load_card(str(copy) if copy.is_file() else run.data.card)
    if changed.identity(card.identity()) != run.identity(card.identity()):
        raise UserError(
            f"{path}: {' '.join(overrides)} would change what was trained; only the settings "
            "evaluate.* and machine.* can be overridden here"
        )
    return RunFolder(path, changed, card)


def check_unchanged(folder: RunFolder, cases: tuple[Case, ...], *, training: bool = False) -> None:
    """Raise `UserError` where the card or its cases are not those that the run was trained on.

    A fold is a list of places: with one case more, a case that trained may become a tested one.
    The pseudo-labels matter to `training` alone.
    """
    path = folder.path / PROVENANCE
    known = read_provenance(path)
    if not known and not folder.begun:
        return
    if not known:
        raise UserError(
            f"{path}: is gone, and with it what the run was trained on; bring it back, or delete "
            "the run's folder and train again"
        )
    if known.get("identity", folder.identity) != folder.identity:
        raise UserError(
            f"{folder.path}: {SETTINGS} or {CARD} there were edited since this run began; bring "
            "them back, or delete the folder and train again"
        )
    now = data_facts(folder, cases, training=training)
    known.setdefault("supervoxels", now.get("supervoxels"))  # older runs did not note them
    if any(known.get(key) != fact for key, fact in now.items()):
        raise UserError(
            f"{folder.path}: card {folder.card.name}, its prepared cases or their supervoxels have "
            "changed since this run was trained; bring them back, or delete the folder and train "
            "again"
        )


def data_facts(folder: RunFolder, cases: tuple[Case, ...], *, training: bool) -> dict[str, object]:
    """What a run is and what it is computed from, as hashes; with `training`, pseudo-labels too."""
    facts = {
        "identity": folder.identity,
        "data": {case.name: case.meta.sources for case in cases},
    }
    if training and folder.run.data.labels == "supervoxels":
        facts["supervoxels"] = {
            case.name: digest(case.supervoxel_meta.model_dump(mode="json", exclude_defaults=True))
            for case in split(folder.card, cases, folder.run.data.fold).training
        }
    return facts


def provenance(folder: RunFolder, cases: tuple[Case, ...]) -> dict[str, object]:
    """What a number must be read with: commit, versions, machine, data hashes."""
    packages = ("catnet", "torch", "monai", "segmentation-models-pytorch", "timm", "numpy")
    return {
        "commit": commit(),
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        **data_facts(folder, cases, training=True),
    }


def read_provenance(path: Path) -> dict:
    """What `provenance` wrote; empty where it wrote nothing yet."""
    try:
        known = read_json(path) if path.is_file() else {}
    except (OSError, ValueError):
        known = None
    if not isinstance(known, dict):
        raise UserError(f"{path}: damaged; delete the run's folder and train again")
    return known


def commit() -> str:
    """The checkout's commit, with `-dirty` where files differ from it; `unknown` outside of one."""
    here = Path(__file__).parent
    try:
        found = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def write_json(path: Path, content: object) -> None:
    """Write JSON that a person can read."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_yaml(path: Path, content: dict) -> None:
    """Write YAML in the order of the settings."""
    write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_json_lines(path: Path) -> list[dict]:
    """The whole lines of a log; one that was cut off by a kill, and all after it, are left out."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    found = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            break
        if not isinstance(content, dict) or not isinstance(content.get("step"), int):
            break
        found.append(content)
    return found
