"""`catnet view` on runs, on predictions and on files: what the page holds, and the mistakes."""

import base64
import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest
from trials import complaint, end_of

from catnet.data.card import load_card
from catnet.data.store import open_cases
from catnet.data.volume import resample


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def unpack(layer):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(layer["volume"])))


@pytest.fixture
def files(tmp_path):
    """A scan and two labels of it, in a folder with a space and letters beyond ASCII."""
    folder = tmp_path / "été 1"
    folder.mkdir()
    image = np.random.default_rng(0).integers(0, 500, (16, 14, 6)).astype(np.int16)
    for name, start in (("truth", 3), ("guess", 4)):
        label = np.zeros(image.shape, dtype=np.uint8)
        label[start : start + 6, 4:9, 1:5] = 2
        label[12:15, 2:5, 2:4] = 7
        nib.save(nib.Nifti1Image(label, np.diag([-2.0, 2, 5, 1])), folder / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(image, np.diag([-2.0, 2, 5, 1])), folder / "scan.nii.gz")
    return folder


def test_files_become_layers(files, capsys):
    words = [str(files / f"{name}.nii.gz") for name in ("scan", "truth", "guess")]
    status, out, _ = end_of(["view", *words], capsys)
    assert status == 0
    assert f"page: {files / 'truth.html'}" in out
    found = data_of(files / "truth.html")
    assert [name for name, _ in found["organs"]] == ["label 2", "label 7"]
    (pane,) = found["panes"]
    assert [layer["name"] for layer in pane["layers"]] == ["truth", "guess"]
    raw = nib.load(files / "guess.nii.gz")
    layer = unpack(pane["layers"][1])
    np.testing.assert_allclose(layer.affine, raw.affine)
    expected = np.select([np.asarray(raw.dataobj) == n for n in (2, 7)], [1, 2], 0)
    np.testing.assert_array_equal(np.asarray(layer.dataobj), expected)
    index = nib.affines.apply_affine(np.linalg.inv(raw.affine), pane["middle"])
    assert nib.load(files / "truth.nii.gz").dataobj[tuple(np.rint(index).astype(int))] > 0


def test_one_label_alone(files, tmp_path, capsys):
    words = [str(files / f"{name}.nii.gz") for name in ("scan", "truth")]
    path = tmp_path / "one.html"
    assert end_of(["view", *words, "--organ", "7", "-o", str(path)], capsys)[0] == 0
    found = data_of(path)
    assert [name for name, _ in found["organs"]] == ["label 7"]
    assert np.asarray(unpack(found["panes"][0]["layers"][0]).dataobj).sum() == 3 * 3 * 2


def test_a_label_of_another_grid_is_shown_with_a_warning(files, capsys):
    label = nib.load(files / "truth.nii.gz")
    elsewhere = label.affine.copy()
    elsewhere[0, 3] += 7
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), elsewhere), files / "far.nii.gz")
    status, _, err = end_of(["view", files / "scan.nii.gz", files / "far.nii.gz"], capsys)
    assert status == 0
    assert err.startswith(f"warning: {files / 'far.nii.gz'}: its affine puts voxels up to 7 mm")
    assert "--resample-labels" not in err
    assert "<strong>Warning:</strong>" in (files / "far.html").read_text(encoding="utf-8")


def test_image_and_label_swapped(files, capsys):
    said = complaint(["view", files / "truth.nii.gz", files / "scan.nii.gz"], capsys)
    assert "the image comes first: IMAGE LABEL" in said


SUMMARY = {
    "scan": {
        "query": "scan.nii.gz",
        "label": "guess.nii.gz",
        "model": "copy",
        "supports": [{"image": "other.nii.gz", "label": "truth.nii.gz"}],
        "organs": [{"number": 2, "name": "liver <b>", "volume_ml": 3.0, "confidence": 0.75}],
        "warnings": ["the spacing is unlike the support's"],
    }
}


@pytest.mark.parametrize("labelled", [True, False])
def test_a_prediction_stands_beside_its_support(labelled, files, capsys):
    (files / "other.nii.gz").write_bytes((files / "scan.nii.gz").read_bytes())
    summary = json.loads(json.dumps(SUMMARY))
    if not labelled:  # absolute, as it was given on the command line, and without its label
        summary["scan"]["supports"] = [str(files / "other.nii.gz")]
    (files / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    status, _, err = end_of(["view", str(files)], capsys)
    assert (status, err) == (0, "warning: the spacing is unlike the support's\n")
    found = data_of(files / "view.html")
    assert [name for name, _ in found["organs"]] == ["liver <b>"]
    assert [pane["title"] for pane in found["panes"]] == ["query scan", "support other"]
    assert len(found["panes"][1]["layers"]) == labelled
    text = (files / "view.html").read_text(encoding="utf-8").partition("<script")[0]
    assert "<b>" not in text
    for said in (
        "Predicted liver &lt;b&gt;: 3.0 ml, mean probability 0.75.",
        "<strong>Warning:</strong> the spacing",
    ):
        assert said in text
    assert "--case 'x' is not there; there are scan" in complaint(
        ["view", str(files), "--case", "x"], capsys
    )


@pytest.mark.parametrize("kind", ["image", "rounds"])
def test_a_run_shows_every_round_of_its_first_query(kind, trained, capsys):
    folder = trained()
    status, out, err = end_of(["view", str(folder.path)], capsys)
    assert (status, err) == (0, "")
    (path,) = (folder.path / "view").glob("*.html")
    assert f"page: {path}" in out
    found = data_of(path)
    query, support = found["panes"]
    case, by = (pane["title"].split()[-1] for pane in (query, support))
    cases = {case.name: case for case in open_cases(load_card("tiny"))}
    assert {query["title"], support["title"]} == {f"query {case}", f"support {by}"}
    names = [layer["name"] for layer in query["layers"]]
    assert names == ["M_0", "M_1", "M_2 (final)", "truth"]
    assert query["first"] == 2
    truth = np.asarray(unpack(query["layers"][-1]).dataobj).T
    if kind == "image":
        np.testing.assert_array_equal(truth, cases[case].label)  # the card's numbers are 1 to 4
        image = unpack(query["image"]).get_fdata().T
        assert np.corrcoef(image.ravel(), cases[case].image.ravel())[0, 1] > 0.99
        np.testing.assert_allclose(unpack(query["image"]).affine, cases[case].meta.affine)
    else:
        quick = ["evaluate.baselines=[]", "evaluate.pictures=no"]
        assert end_of(["evaluate", str(folder.path), *quick], capsys)[0] == 0
        (written,) = folder.path.rglob(f"predictions/EP1/{case}_by_{by}.nii.gz")
        final = np.asarray(unpack(query["layers"][2]).dataobj)
        meta = cases[case].meta
        back = resample(final, meta.grid, meta.raw_grid, order=0)
        np.testing.assert_array_equal(back, np.asarray(nib.load(written).dataobj))


def test_a_run_takes_names(trained, tmp_path, capsys):
    folder, path = trained(), tmp_path / "x.html"
    words = ["view", str(folder.path), "--case", "4", "--support", "6", "--organ", "spleen"]
    assert end_of([*words, "-o", str(path)], capsys)[0] == 0
    found = data_of(path)
    assert [pane["title"] for pane in found["panes"]] == ["query 4", "support 6"]
    assert [name for name, _ in found["organs"]] == ["spleen"]
    assert "among the training cases of this run" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("{run} --case 77", "--case '77' is no prepared case; there are 1, 2"),
        ("{run} --organ lung", "--organ 'lung' is not in card tiny; it has liver"),
        ("{run} --case 1 --support 1", "--support 1 is the query itself"),
        ("{run} --case 1 --support 5 --organ spleen", "--support 5 does not show the spleen"),
        ("{begun}", "training has not ended"),
        ("{home}/empty", "not the folder of a run"),
        ("nothing", "nothing: no such file or folder; give a run, a folder that `catnet predict`"),
        ("{raw}/image_1.nii.gz", "a scan alone has no mask; give its label too"),
        ("{raw}/image_1.nii.gz {raw}/image_1.nii.gz", "is no label volume"),
        (
            "{raw}/image_1.nii.gz {raw}/label_1.nii.gz --organ 9",
            "--organ 9 is in none of the labels",
        ),
        ("{raw}/image_1.nii.gz {raw}/label_1.nii.gz --case 9", "--case belongs to a run"),
        ("{raw}/image_1.nii.gz {raw}/none.nii.gz", "no such file"),
        ("{run} -o page.png", "the page is HTML; choose a name that ends in .html"),
    ],
)
def test_a_mistake_is_one_sentence(words, says, places, capsys):
    assert says in complaint(["view", *places(words).split()], capsys)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"queries": [], "supports": [], "organs": {}}']
)
def test_a_damaged_summary_is_one_sentence(content, tmp_path, capsys):
    (tmp_path / "summary.json").write_text(content)
    assert "summary.json" in complaint(["view", str(tmp_path)], capsys)


def test_files_of_one_name_stay_apart(files, capsys):
    for folder in ("x/same", "y/same"):
        (files / folder).mkdir(parents=True)
        (files / folder / "none.nii.gz").write_bytes((files / "truth.nii.gz").read_bytes())
    words = [files / "scan.nii.gz", *(files / one / "same" / "none.nii.gz" for one in "xy")]
    path = files / "page.html"
    assert end_of(["view", *map(str, words), "-o", str(path)], capsys)[0] == 0
    names = [layer["name"] for layer in data_of(path)["panes"][0]["layers"]]
    assert names == ["same/none", "same/none (2)"]
    summary = json.loads(json.dumps(SUMMARY))
    summary["scan"]["supports"] = [
        {"image": f"{one}/same/none.nii.gz", "label": "truth.nii.gz"} for one in "xy"
    ]
    (files / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    sentence = complaint(["view", str(files), "--support", "z"], capsys)
    assert "there are none, none (2)" in sentence


def test_a_label_elsewhere_is_said_on_the_page(files, capsys):
    label = nib.load(files / "truth.nii.gz")
    moved = nib.Nifti1Image(np.asarray(label.dataobj), label.affine + np.eye(4)[:, [3, 0, 1, 2]])
    nib.save(nib.Nifti1Image(moved.dataobj, np.diag([-2.0, 2, 6, 1])), files / "moved.nii.gz")
    words = [str(files / f"{name}.nii.gz") for name in ("scan", "truth", "moved")]
    assert end_of(["view", *words, "-o", str(files / "page.html")], capsys)[0] == 0
    text = (files / "page.html").read_text(encoding="utf-8").partition("<script")[0]
    assert "moved.nii.gz: its affine puts voxels up to" in text
    assert "truth.nii.gz: its affine" not in text


def test_swapped_and_empty_files_are_said(files, capsys):
    scan, truth = (str(files / f"{name}.nii.gz") for name in ("scan", "truth"))
    assert "the image comes first: IMAGE LABEL" in complaint(["view", truth, scan], capsys)
    nib.save(nib.Nifti1Image(np.zeros((16, 14, 6), np.uint8), np.eye(4)), files / "empty.nii.gz")
    sentence = complaint(["view", scan, str(files / "empty.nii.gz")], capsys)
    assert "empty.nii.gz: the label is empty" in sentence
