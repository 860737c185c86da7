"""Shapes and types are checked while the tests run; one thread, because two stall under load."""

import os
import shutil
from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook("catnet", "beartype.beartype")

import nibabel as nib
import pytest

pytest.register_assert_rewrite("trials")

import torch
import yaml
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from catnet.data.card import load_card
from catnet.data.phantom import draw_phantom, write_nifti
from catnet.data.prepare import prepare
from catnet.data.pseudolabels import add_supervoxels
from catnet.data.store import open_cases
from catnet.paths import runs_home
from catnet.question import load_run
from catnet.runs import create_run_folder, open_run_folder
from catnet.torchvision_guard import guard_torchvision
from catnet.train import train

guard_torchvision()
torch.set_num_threads(1)

SHARED = Path(os.environ.get("CATNET_SHARED", Path(__file__).parents[2] / "shared"))
TINY_CARD = {
    "name": "tiny",
    "title": "Six small phantoms",
    "source": "made by the tests",
    "license": "CC0-1.0",
    "citation": "none",
    "modality": "MR",
    "image": "image_{case}.nii.gz",
    "label": "label_{case}.nii.gz",
    "orientation": "LAS",
    "spacing": [None, None, None],
    "clip": {"percentiles": [0, 99.5]},
    "size": [64, 64],
    "organs": {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4},
    "groups": {"kidneys": ["right kidney", "left kidney"], "upper": ["liver", "spleen"]},
    "supervoxels": {"min_size": 100},
    "folds": [[0, 1, 2], [3, 4, 5, 0]],
}
TINY_RUN = {
    "data": {"card": "tiny", "min_pixels": 20},
    "model": {"encoder": "tu-test_resnet", "dim": 32, "rounds": 2},
    "train": {"steps": 6, "batch": 2, "rate": 0.01},
    "machine": {
        "accelerator": "cpu",
        "log_every": 1,
        "checkpoint_every": 3,
        "picture_every": 100,
    },
}
WITHOUT_SPLEEN = 5
TURNED = {2: "PSR", 3: "RPI"}


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """Every test has its own data and runs folder, and never touches the user's."""
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data-home"))
    monkeypatch.setenv("CATNET_RUNS", str(tmp_path / "runs-home"))
    monkeypatch.setenv("CATNET_CARDS", str(Path(__file__).parents[1] / "datasets"))


@pytest.fixture(scope="session")
def chaos() -> Path:
    """Folder of the real CHAOS scans; the test is skipped where they are not at hand."""
    folder = SHARED / "data" / "chaos_t2"
    if not folder.is_dir():
        pytest.skip(f"needs the real scans in {folder} (set CATNET_SHARED)")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory) -> Path:
    """`cards`, `raw` and `data` of six phantoms, 1 to 6; case 5 has no spleen, and 2 is sagittal.

    The raw axes run another way in every case, and preparing turns them without interpolation.
    """
    home = tmp_path_factory.mktemp("tiny")
    for name in ("cards", "raw"):
        (home / name).mkdir()
    for path, content in ((home / "cards" / "tiny.yml", TINY_CARD), (home / "tiny.yml", TINY_RUN)):
        path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    for case in range(1, 7):
        phantom = draw_phantom("MR", seed=0, case=case, size=(64, 64, 12))
        label = phantom.label.copy()
        if case == WITHOUT_SPLEEN:
            label[label == 4] = 0
        for kind, voxels in (("image", phantom.image), ("label", label)):
            path = home / "raw" / f"{kind}_{case}.nii.gz"
            write_nifti(path, voxels=voxels, affine=phantom.affine)
            if case in TURNED:
                scan = nib.load(path)
                turn = ornt_transform(io_orientation(scan.affine), axcodes2ornt(TURNED[case]))
                nib.save(scan.as_reoriented(turn), path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(home / "data"))
        card = load_card(str(home / "cards" / "tiny.yml"))
        list(prepare(card, home / "raw"))
        list(add_supervoxels(card, open_cases(card)))
    return home


@pytest.fixture
def tiny(tiny_home, homes, monkeypatch):
    """`tiny("train.steps=3")`: the folder of a new run on the six phantoms."""
    monkeypatch.setenv("CATNET_DATA", str(tiny_home / "data"))
    monkeypatch.setenv("CATNET_CARDS", str(tiny_home / "cards"))
    return lambda *settings: create_run_folder(load_run(tiny_home / "tiny.yml", settings))


@pytest.fixture(scope="session")
def trained_home(tiny_home, tmp_path_factory) -> Path:
    """The folder of a run that was trained for two steps; made once, never changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(tiny_home / "data"))
        patch.setenv("CATNET_CARDS", str(tiny_home / "cards"))
        patch.setenv("CATNET_RUNS", str(tmp_path_factory.mktemp("trained")))
        folder = create_run_folder(load_run(tiny_home / "tiny.yml", ["train.steps=2"]))
        train(folder, report=lambda progress: None, say=lambda text: None)
    return folder.path


@pytest.fixture
def trained(tiny, trained_home):
    """`trained("evaluate.support=each")`: the folder of a run that has ended, the test's own."""
    path = runs_home() / trained_home.name
    shutil.copytree(trained_home, path)
    return lambda *settings: open_run_folder(path, overrides=settings)


@pytest.fixture
def places(tiny, tiny_home, trained, tmp_path):
    """Fills in what a command names: a card, a run file, folders of runs and of nothing."""
    (tmp_path / "folder.yml").mkdir()
    (tmp_path / "empty").mkdir()
    begun = tiny("train.steps=5").path
    run = trained().path
    file = tiny_home / "tiny.yml"
    names = {"home": tmp_path, "raw": tiny_home / "raw", "file": file, "begun": begun, "run": run}
    return lambda text: text.format(**names)
