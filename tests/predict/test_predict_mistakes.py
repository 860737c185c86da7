import os
import re
import signal

import nibabel as nib
import numpy as np
import pytest
from trials import complaint, end_of

AFFINE = np.diag([-3.0, 3.0, 4.0, 1.0])
SHAPE = (40, 40, 9)


@pytest.fixture
def pair(save):
    """A scan and a label with organs 1 and 7, as files."""
    voxels = np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.float32)
    label = np.zeros(SHAPE, np.uint8)
    label[10:20, 10:20, 3:6], label[0:2, 0:2, 4] = 1, 7
    return save("image", voxels), save("label", label)


def words(support, query, out, *more, model="copy"):
    return [
        *("predict", "--model", model, "--support", *support),
        *("--query", query, "-o", out, *more),
    ]


def said(capsys, *given, **kwargs):
    return complaint(words(*given, **kwargs), capsys)


def test_an_unknown_organ_number_lists_those_there(pair, tmp_path, capsys):
    sentence = said(capsys, pair, pair[0], tmp_path / "out", "--organ", "3")
    assert sentence == "--organ 3: no support's label holds it; there are 1, 7"
    assert not (tmp_path / "out").exists(), "nothing was written, and no empty folder is left"


def test_a_label_on_another_grid_is_resampled_when_asked(pair, save, tmp_path, capsys):
    half = nib.load(pair[1]).get_fdata()[::2].astype(np.uint8)
    label = save("half", half, AFFINE @ np.diag([2, 1, 1, 1]))
    assert "or give --resample-labels" in said(capsys, (pair[0], label), pair[0], tmp_path / "out")
    command = words((pair[0], label), pair[0], tmp_path / "out", "--resample-labels")
    status, out, err = end_of(command, capsys)
    assert (status, "label 1" in out) == (0, True)
    assert "on a grid of its own, resampled by nearest neighbor" in err


def test_a_label_as_query_is_told(pair, tmp_path, capsys):
    status, _, err = end_of(words(pair, pair[1], tmp_path / "out"), capsys)
    assert status == 0
    assert "give the image, not its label" in err
    _, _, err = end_of(words((pair[1], pair[1]), pair[1], tmp_path / "two"), capsys)
    assert "give the image" not in err, "the support is such a one, too"


def label_faults():
    empty, halves = np.zeros(SHAPE, np.uint8), np.full(SHAPE, 0.5, np.float32)
    shorter, negative = np.ones((40, 40, 8), np.uint8), np.full(SHAPE, -1, np.int16)
    color = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    elsewhere = AFFINE + np.array([[0, 0, 0, 9.0], *np.zeros((3, 4))])
    return {
        "empty": (empty, AFFINE, "the label is empty"),
        "halves": (halves, AFFINE, "not all label numbers"),
        "negative": (negative, AFFINE, "not all label numbers"),
        "another shape": (shorter, AFFINE, r"shape \(40, 40, 8\) differs from \(40, 40, 9\)"),
        "another place": (np.ones(SHAPE, np.uint8), elsewhere, "9 mm away from those of"),
        "4D": (np.ones((*SHAPE, 2), np.uint8), AFFINE, "4 axes"),
        "RGB": (color, AFFINE, "real numbers"),
    }


@pytest.mark.parametrize("fault", label_faults())
def test_a_label_that_does_not_fit(fault, pair, save, tmp_path, capsys):
    voxels, affine, hint = label_faults()[fault]
    label = save("odd label", voxels, affine)
    sentence = said(capsys, (pair[0], label), pair[0], tmp_path / "out")
    assert "odd label.nii.gz" in sentence
    assert re.search(hint, sentence)


def test_an_organ_outside_of_the_card_s_field(pair, tmp_path, capsys, trained_card):
    more = ("--card", trained_card, "--organ", "7")
    sentence = said(capsys, pair, pair[0], tmp_path / "out", *more)
    assert "label 7 (7) lies outside of the 32 x 32 voxels that card narrow keeps" in sentence


@pytest.fixture
def trained_card(tmp_path):
    """A card that keeps the middle 32 x 32 voxels."""
    import yaml
    from scenes import make_card

    card = make_card(name="narrow", size=(32, 32)).model_dump(mode="json")
    (tmp_path / "narrow.yml").write_text(yaml.safe_dump(card), encoding="utf-8")
    return tmp_path / "narrow.yml"


@pytest.mark.parametrize("kind", ["4D", "RGB", "text", "missing", "constant"])
def test_a_query_that_is_no_scan(kind, pair, save, tmp_path, capsys):
    query = tmp_path / "query.nii.gz"
    if kind == "text":
        query.write_text("no scan")
    elif kind == "4D":
        query = save("query", np.ones((*SHAPE, 3), np.float32))
    elif kind == "RGB":
        query = save("query", np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    elif kind == "constant":
        query = save("query", np.ones(SHAPE, np.float32))
    assert "query.nii.gz" in said(capsys, pair, query, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    if kind == "missing":
        assert "no such file or folder; check the path" in said(capsys, pair, query, tmp_path / "o")


def test_a_process_that_is_killed_is_noticed(pair, save, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("catnet.predict.run.attempt_there", kill_itself)
    command = words(pair, pair[0], tmp_path / "o", "--jobs", "2", "--query", pair[1])
    assert "a process was killed" in complaint(command, capsys)


def kill_itself(request, wanted):
    os.kill(os.getpid(), signal.SIGKILL)


def test_the_others_go_on_where_one_fails(pair, save, tmp_path, capsys):
    bad = save("bad", np.ones(SHAPE, np.float32))
    command = words(pair, bad, tmp_path / "out", "--keep-going", "--query", pair[0])
    status, out, err = end_of(command, capsys)
    assert status == 2
    assert "image" in out
    assert f"failed: {bad}: " in err
    assert err.endswith("catnet: 1 of 2 queries were left out, see above\n")
    assert (tmp_path / "out" / "image_pred.nii.gz").is_file()
    assert "image" in (tmp_path / "out" / "summary.csv").read_text()
    status, _, err = end_of(words(pair, bad, tmp_path / "two", "--query", pair[0]), capsys)
    assert status == 2
    assert not list((tmp_path / "two").glob("*.nii.gz"))


def test_what_is_there_is_not_written_over(pair, tmp_path, capsys):
    out = tmp_path / "out"
    assert end_of(words(pair, pair[0], out), capsys)[0] == 0
    before = (out / "image_pred.nii.gz").stat().st_mtime_ns
    sentence = said(capsys, pair, pair[0], out)
    assert sentence.endswith("image_pred.nii.gz: is there already; --again writes it anew")
    assert (out / "image_pred.nii.gz").stat().st_mtime_ns == before
    assert end_of(words(pair, pair[0], out, "--again"), capsys)[0] == 0
    assert (out / "image_pred.nii.gz").stat().st_mtime_ns > before


def test_two_queries_of_one_name(pair, tmp_path, capsys):
    (tmp_path / "b").mkdir()
    twin = tmp_path / "b" / "image.nii"
    nib.save(nib.load(pair[0]), twin)
    sentence = said(capsys, pair, pair[0], tmp_path / "out", "--query", twin)
    assert "would be written to the same file as" in sentence


def test_a_folder_that_cannot_be_written(pair, tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("a regular file")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        assert str(tmp_path / "file") in said(capsys, pair, pair[0], out)
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: False)
    assert "no folder that you may write to" in said(capsys, pair, pair[0], tmp_path / "closed")


def test_a_disk_that_is_full(pair, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nibabel.save", full)
    sentence = said(capsys, pair, pair[0], tmp_path / "out")
    assert "No space left on device" in sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (["--organ", "0"], "'0' is no label number from 1"),
        (["--organ", "1="], "is no label number"),
        (["--jobs", "0"], "'0' is no number of processes"),
        (["--dicom-seg"], "give the folder of the series, or leave --dicom-seg out"),
        (["--card", "none"], "card 'none' is not in"),
    ],
)
def test_a_mistake_in_an_option(more, hint, pair, tmp_path, capsys):
    assert hint in said(capsys, pair, pair[0], tmp_path / "out", *more)


def test_models_that_are_none(pair, tmp_path, capsys, places):
    out = tmp_path / "out"
    begun, run = places("{begun}"), places("{run}")
    assert "not the folder of a run" in said(capsys, pair, pair[0], out, model=tmp_path)
    assert "did you mean 'copy'?" in said(capsys, pair, pair[0], out, model="copi")
    assert "training has not ended" in said(capsys, pair, pair[0], out, model=begun)
    sentence = said(capsys, pair, pair[0], out, "--card", "tiny", model=run)
    assert "has the card it was trained with; leave --card out" in sentence
    sentence = said(capsys, pair, pair[0], out, model="hf://nobody")
    assert "write hf://OWNER/NAME or a folder" in sentence
