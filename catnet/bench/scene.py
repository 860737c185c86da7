"""What a benchmark runs on: a few synthetic cases in a folder that is gone afterwards.

A scene sets CATNET_DATA, CATNET_RUNS and CATNET_CARDS, so nothing of the user's is touched. Its
folder bears the number of its process: what one that was killed left, the next one removes.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml

from catnet.data.card import Card, load_card
from catnet.data.phantom import draw_phantom, write_nifti
from catnet.data.prepare import prepare
from catnet.data.pseudolabels import add_supervoxels
from catnet.data.store import Case, clear_leftovers, open_cases
from catnet.errors import WriteError, writing
from catnet.question import load_run
from catnet.runs import RunFolder, find_run_folder

HOMES = ("CATNET_DATA", "CATNET_RUNS", "CATNET_CARDS")
LEFTOVER = "catnet-bench"
CASES, TESTED = 4, [0, 1]
FIELD = 307.0  # mm, about what a phantom is wide


@dataclass(frozen=True)
class Size:
    """How large a scene is.

    plane, depth     of the prepared cases, in voxels
    raw              width of the scans before that
    cut, cuts        slices of the volumes that are cut into supervoxels, and how many for purity
    deep             slices and width of the volume that is to show how memory grows
    repeats          pairs of a short measurement; long ones take fewer
    """

    name: str
    plane: int
    depth: int
    raw: int
    cut: int
    cuts: int
    deep: tuple[int, int]
    min_size: int
    min_pixels: int
    model: dict[str, object]
    repeats: int


FULL = Size("full", 256, 30, 320, 36, 20, (400, 128), 5000, 200, {}, 5)
SMALL = {"encoder": "tu-test_resnet", "dim": 32, "rounds": 2}
QUICK = Size("quick", 64, 10, 80, 12, 2, (40, 64), 100, 20, SMALL, 2)
SIZES = {size.name: size for size in (FULL, QUICK)}


@dataclass(frozen=True)
class Scene:
    """Prepared cases, and where the run file lies that is measured."""

    size: Size
    home: Path
    device: torch.device

    @property
    def raw(self) -> Path:
        """The scans as they came."""
        return self.home / "raw"

    @property
    def card(self) -> Card:
        """The card of the cases."""
        return load_card("bench")

    @property
    def cases(self) -> tuple[Case, ...]:
        """All of them; the first two are tested."""
        return open_cases(self.card)

    def run(self, *settings: str) -> RunFolder:
        """The run that is measured, with some settings changed; nothing is written."""
        return find_run_folder(load_run(self.home / "bench.yml", settings))


@contextmanager
def open_scene(size: Size, *, device: torch.device) -> Iterator[Scene]:
    """Make a scene, and take it away in the end; raises `UserError` where it has no room."""
    before = {name: os.environ.get(name) for name in HOMES}
    clear_leftovers(Path(tempfile.gettempdir()), begin=LEFTOVER)
    with tempfile.TemporaryDirectory(prefix=f"{LEFTOVER}-", suffix=f"-{os.getpid()}") as folder:
        scene = Scene(size, Path(folder), device)
        try:
            os.environ.update({name: str(scene.home / name.lower()) for name in HOMES})
            with writing(scene.home):
                furnish(scene)
            yield scene
        except WriteError as failed:  # the homes are the scene's, and not the user's to choose
            raise WriteError(failed.path, failed.error, homes="TMPDIR") from None
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def furnish(scene: Scene) -> None:
    """Draw, prepare and cut the cases, and write the run file."""
    size = scene.size
    for folder in ("raw", "catnet_cards"):
        (scene.home / folder).mkdir()
    card = yaml.safe_dump(card_of(size), sort_keys=False)
    (scene.home / "catnet_cards" / "bench.yml").write_text(card, encoding="utf-8")
    accelerator = "gpu" if scene.device.type == "cuda" else "cpu"
    run = {
        "question": "How fast is it?",
        "data": {"card": "bench", "min_pixels": size.min_pixels},
        "model": size.model,
        "machine": {"accelerator": accelerator},
    }
    (scene.home / "bench.yml").write_text(yaml.safe_dump(run), encoding="utf-8")
    for case in range(1, CASES + 1):
        phantom = draw_phantom("MR", seed=0, case=case, size=(size.raw, size.raw, size.depth))
        for kind, voxels in (("image", phantom.image), ("label", phantom.label)):
            path = scene.raw / f"{kind}_{case}.nii.gz"
            write_nifti(path, voxels=voxels, affine=phantom.affine)
    list(prepare(scene.card, scene.raw))
    list(add_supervoxels(scene.card, scene.cases))


def card_of(size: Size) -> dict[str, object]:
    """The card of the phantoms, at the size of the scene."""
    spacing = round(FIELD / size.plane, 3)
    return {
        "name": "bench",
        "title": "Synthetic abdomens for the benchmark",
        "source": "catnet bench",
        "license": "CC0-1.0",
        "citation": "none",
        "modality": "MR",
        "image": "image_{case}.nii.gz",
        "label": "label_{case}.nii.gz",
        "orientation": "LAS",
        "spacing": [spacing, spacing, None],
        "clip": {"percentiles": [0, 99.5]},
        "size": [size.plane, size.plane],
        "organs": {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4},
        "supervoxels": {"min_size": size.min_size},
        "folds": [TESTED],
    }
