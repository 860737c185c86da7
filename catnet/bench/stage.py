"""The synthetic cases of a scene: drawn, prepared and cut, and taken away afterwards."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import yaml

from catnet.bench.apart import apart
from catnet.bench.scene import HOMES, Scene, Size
from catnet.data.phantom import draw_phantom, write_nifti
from catnet.data.prepare import prepare
from catnet.data.pseudolabels import add_supervoxels
from catnet.data.store import clear_leftovers
from catnet.errors import WriteError, writing

LEFTOVER = "catnet-bench"
CASES, TESTED = 4, [0, 1]
FIELD = 307.0  # mm, about what a phantom is wide


@contextmanager
def open_scene(size: Size, *, device: torch.device) -> Iterator[Scene]:
    """Make a scene, and take it away in the end; raises `UserError` where it has no room."""
    before = {name: os.environ.get(name) for name in HOMES}
    clear_leftovers(Path(tempfile.gettempdir()), begin=LEFTOVER)
    with tempfile.TemporaryDirectory(prefix=f"{LEFTOVER}-", suffix=f"-{os.getpid()}") as folder:
        home = Path(folder)
        try:
            os.environ.update({name: str(home / name.lower()) for name in HOMES})
            with apart() as call:
                scene = Scene(size, home, device, call)
                with writing(home):
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
