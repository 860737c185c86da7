"""Real scans: two CHAOS cases, and two slabs of one CT that share no slice.

The labels of the CT were made by a machine: what is tested is where files lie, never a Dice.
"""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from trials import end_of

from catnet.cli import main
from catnet.data.card import load_card

SHARED = Path(os.environ.get("CATNET_SHARED", Path(__file__).parents[3] / "shared"))
CARDS = Path(__file__).parents[2] / "datasets"
SMALL = {"spacing": [2.5, 2.5, 7.7], "size": [128, 128], "name": "chaos_small"}


@pytest.fixture(scope="session")
def ct():
    """Folder of the CT; the test is skipped where it is not at hand."""
    folder = SHARED / "data" / "ct_example"
    if not folder.is_dir():
        pytest.skip(f"needs the real CT in {folder} (set CATNET_SHARED)")
    return folder


@pytest.fixture
def slabs(ct, tmp_path):
    """Image and label of the lower and the upper part of one CT, each on a grid of its own."""
    found = []
    for name, part in (("low", slice(60, 92)), ("high", slice(93, 112))):
        paths = []
        for kind in ("image", "label"):
            scan = nib.load(ct / f"ct3mm_{kind}.nii.gz")
            paths.append(tmp_path / f"{name}_{kind}.nii.gz")
            nib.save(scan.slicer[:, :, part], paths[-1])
        found.append(tuple(paths))
    return found


@pytest.fixture
def chaos_run(trained, tmp_path):
    """A tiny network, trained on phantoms, that is told to prepare scans as CHAOS."""
    folder = trained()
    card = load_card(str(CARDS / "chaos_t2.yml")).model_dump(mode="json") | SMALL
    export = tmp_path / "export"
    main(["export", str(folder.path), str(export)])
    (export / "card.yml").write_text(yaml.safe_dump(card), encoding="utf-8")
    return export


def both(model, support, query, out, *more):
    return [
        *("predict", "--model", model, "--support", *support, "--query", query),
        *("-o", out, "--device", "cpu", *more),
    ]


def check_result(out, query, *, numbers):
    name = query.name.removesuffix(".nii.gz")
    found, scan = nib.load(out / f"{name}_pred.nii.gz"), nib.load(query)
    assert found.shape == scan.shape
    np.testing.assert_array_equal(found.affine, scan.affine)
    assert (found.header["qform_code"], found.header["sform_code"]) == (
        scan.header["qform_code"],
        scan.header["sform_code"],
    )
    assert found.get_data_dtype().kind in "ui"
    assert set(np.unique(found.dataobj)) <= {0, *numbers}
    record = json.loads((out / "summary.json").read_text(encoding="utf-8"))[name]
    assert {organ["number"] for organ in record["organs"]} == set(numbers)
    return np.asarray(found.dataobj), record


def test_chaos_by_copy_and_by_a_network(chaos, chaos_run, tmp_path, capsys):
    support = (chaos / "image_1.nii.gz", chaos / "label_1.nii.gz")
    query = chaos / "image_2.nii.gz"
    for model in ("copy", chaos_run):
        out = tmp_path / f"out {model == 'copy'}"
        status, _, err = end_of(both(model, support, query, out), capsys)
        assert (status, err) == (0, "")  # two scans of one data set look alike
        labels, record = check_result(out, query, numbers=(1, 2, 3, 4))
        if model == "copy":
            truth = np.asarray(nib.load(chaos / "label_2.nii.gz").dataobj) == 1
            share = 2 * (truth & (labels == 1)).sum() / (truth.sum() + (labels == 1).sum())
            assert 0.1 < share < 0.8  # EP2's floor: right side of the body, no more
        else:
            assert [o["name"] for o in record["organs"]][:2] == ["liver", "right kidney"]


def test_two_slabs_of_a_ct(slabs, tmp_path, capsys):
    """The gap between the slabs runs through liver and spleen, so both slabs show them."""
    low, high = slabs
    out = tmp_path / "out"
    command = both("copy", low, high[0], out, "--organ", "1=spleen", "5=liver", "--probability")
    status, _, err = end_of(command, capsys)
    assert status == 0
    assert "modality" not in err
    check_result(out, high[0], numbers=(1, 5))
    for number in (1, 5):
        chance = nib.load(out / f"high_image_prob_{number}.nii.gz")
        np.testing.assert_array_equal(chance.affine, nib.load(high[0]).affine)


def test_a_network_on_the_ct_says_that_it_is_no_mr(slabs, chaos_run, tmp_path, capsys):
    low, high = slabs
    out = tmp_path / "out"
    status, _, err = end_of(both(chaos_run, low, high[0], out, "--organ", "5=liver"), capsys)
    assert status == 0
    assert "look like CT, and the model's card chaos_small is for MR" in err
    check_result(out, high[0], numbers=(5,))


def test_a_ct_card_prepares_the_ct(slabs, tmp_path, capsys):
    """Window, body crop and table as in SABS, on the scanner's own grid again."""
    low, high = slabs
    card = load_card(str(CARDS / "sabs.yml")).model_dump(mode="json")
    card |= {"spacing": [3.0, 3.0, 3.0], "size": [128, 128]}
    (tmp_path / "sabs.yml").write_text(yaml.safe_dump(card), encoding="utf-8")
    more = ("--card", tmp_path / "sabs.yml", "--organ", "5")
    status, _, err = end_of(both("copy", low, high[0], tmp_path / "out", *more), capsys)
    assert status == 0
    assert "look like" not in err
    labels, record = check_result(tmp_path / "out", high[0], numbers=(5,))
    assert labels.any()
    assert record["organs"][0]["name"] == "label 5"  # the card's 5 is another organ
