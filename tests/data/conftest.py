"""A tiny data set: its card, its raw scans, and prepared cases made by hand."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml

from catnet.data.card import Card
from catnet.data.store import (
    Case,
    Meta,
    SupervoxelMeta,
    case_folder,
    write_folder,
    write_supervoxels,
)

AFFINE = np.diag([-2.0, 2.0, 4.0, 1.0])  # LAS, so that preparing moves nothing
SHAPE = (32, 32, 6)
CARD = {
    "name": "tiny",
    "title": "Two blobs",
    "source": "made by a test",
    "license": "CC0-1.0",
    "citation": "none",
    "modality": "MR",
    "image": "image_{case}.nii.gz",
    "label": "label_{case}.nii.gz",
    "orientation": "LAS",
    "spacing": [2.0, 2.0, 4.0],
    "clip": {"percentiles": [0, 100]},
    "size": [32, 32],
    "organs": {"liver": 1, "spleen": 4},
    "other_labels": [7],
    "groups": {"right": ["liver"], "left": ["spleen"]},
    "supervoxels": {"min_size": 10},
    "folds": 2,
}


@pytest.fixture
def content():
    """The card as its YAML says it; a test may change it."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in CARD.items()}


@pytest.fixture
def make_card():
    """The tiny card, with changes."""
    return lambda **changes: Card(**{**CARD, **changes})


@pytest.fixture
def write_card(tmp_path):
    """Write the tiny card with changes, `None` drops a key; returns the path of the YAML."""

    def write(**changes):
        kept = {key: value for key, value in {**CARD, **changes}.items() if value is not None}
        path = tmp_path / "tiny.yml"
        path.write_text(yaml.safe_dump(kept), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_scan():
    """Write NIfTI, of a new case as of an old one."""

    def write(path: Path, voxels, affine=AFFINE):
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, affine), path)
        return path

    return write


@pytest.fixture
def raw(tmp_path, write_scan):
    """Three cases, 1, 2 and 10, of noise with a bright liver and a brighter spleen."""
    folder = tmp_path / "raw"
    for case in (1, 2, 10):
        label = np.zeros(SHAPE, dtype=np.uint8)
        label[4:14, 6:20, 1:4] = 1
        label[20:28, 8:18, 2:6] = 4
        noise = np.random.default_rng(case).normal(100, 10, SHAPE)
        image = (noise + 50 * (label == 1) + 90 * (label == 4)).astype(np.float32)
        write_scan(folder / f"image_{case}.nii.gz", image)
        write_scan(folder / f"label_{case}.nii.gz", label)
    return folder


@pytest.fixture
def make_case():
    """A prepared case from its labels; slice z of case "k" is the constant 100 k + z."""

    def make(card, name, label, supervoxels=None):
        depth, height, width = label.shape
        code = 100 * int(name) + np.arange(depth, dtype=np.float32)
        image = np.broadcast_to(code[:, None, None], label.shape)
        organs = {organ: label == number for organ, number in card.organs.items()}
        meta = Meta(
            case=name,
            preparation=card.preparation(),
            sources={},
            shape=label.shape,
            affine=AFFINE.tolist(),
            spacing=(2.0, 2.0, 4.0),
            raw_shape=(width, height, depth),
            raw_affine=AFFINE.tolist(),
            pixels={organ: where.sum(axis=(1, 2)).tolist() for organ, where in organs.items()},
        )
        write_folder(case_folder(card, name), {"image": image, "label": label}, meta)
        case = Case(case_folder(card, name))
        if supervoxels is not None:
            counts = [np.bincount(s.ravel(), minlength=supervoxels.max() + 1) for s in supervoxels]
            pixels = np.array(counts).tolist()
            write_supervoxels(case, supervoxels, SupervoxelMeta(min_size=10, pixels=pixels))
        return case

    return make


@pytest.fixture
def one(tmp_path, write_scan):
    """Write a raw case that a test made up; returns the raw folder."""

    def write(image, label, *, affine=AFFINE, label_affine=None, case="1"):
        where = affine if label_affine is None else label_affine
        write_scan(tmp_path / "one" / f"image_{case}.nii.gz", image, affine)
        write_scan(tmp_path / "one" / f"label_{case}.nii.gz", label, where)
        return tmp_path / "one"

    return write


@pytest.fixture
def image():
    return np.random.default_rng(0).normal(100, 10, (32, 32, 6)).astype(np.float32)


@pytest.fixture
def label():
    label = np.zeros((32, 32, 6), dtype=np.uint8)
    label[10:20, 12:22, 1:5] = 1
    label[4:8, 4:8, 2:4] = 4
    return label
