import errno
import os
import re
import signal

import nibabel as nib
import numpy as np
import pytest
from trials import complaint, end_of

from catnet.errors import UserError

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


@pytest.mark.parametrize("organs", [("1=a", "1=b"), ("1=x", "7=x"), ("1", "1")])
def test_an_organ_or_a_name_given_twice(pair, tmp_path, capsys, organs):
    assert "stands twice" in said(capsys, pair, pair[0], tmp_path / "out", "--organ", *organs)


@pytest.mark.parametrize("name", ["scan_pred", "scan_prob_1"])
def test_again_does_not_overwrite_what_was_given(pair, save, tmp_path, capsys, name):
    query, label = save("scan", np.asarray(nib.load(pair[0]).dataobj)), pair[1].read_bytes()
    support = (pair[0], tmp_path / f"{name}.nii.gz")
    support[1].write_bytes(label)
    sentence = said(capsys, support, query, tmp_path, "--again", "--probability")
    assert f"{name}.nii.gz: is given, and would be overwritten" in sentence
    assert support[1].read_bytes() == label


def test_a_query_of_one_value_needs_no_card(pair, save, tmp_path, capsys):
    sentence = said(capsys, pair, save("flat", np.full(SHAPE, 7, np.int16)), tmp_path / "out")
    assert "every voxel is 7; give a scan that shows something" in sentence


@pytest.mark.parametrize("content", ["{", "[]", '{"a": {"label": "a", "organs": null}}'])
def test_a_damaged_summary_is_said_before_the_work(pair, tmp_path, capsys, content):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text(content)
    assert "summary.json: damaged" in said(capsys, pair, pair[0], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]


def test_no_folder_is_made_for_a_model_that_is_not_there(pair, tmp_path, capsys):
    said(capsys, pair, pair[0], tmp_path / "out", model="hf://nobody")
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text_is_refused(pair, tmp_path, capsys):
    query = os.path.join(os.fsencode(tmp_path), b"scan\xff.nii.gz")
    with open(query, "wb") as file:
        file.write(pair[0].read_bytes())
    assert "unreadable letters" in said(capsys, pair, os.fsdecode(query), tmp_path / "out")


def test_what_was_killed_is_cleared_and_what_is_the_users_stays(pair, tmp_path, predict):
    out = tmp_path / "out"
    out.mkdir()
    for name in ("a_prob_1.nii.gz.raw", "a_pred.nii.gz", "summary.json", ".lock.json", "mine_pr"):
        (out / f".999999999-{name}").touch()
    predict(pair[0], output=out)
    assert {path.name for path in out.glob(".*-*")} == {".999999999-mine_pr"}


def test_a_failed_query_leaves_none_of_its_files(pair, tmp_path, monkeypatch, capsys):
    from catnet.predict import query

    def full(*_, **__):
        raise UserError("disk is full")

    monkeypatch.setattr(query, "write_labels", full)
    sentence = said(capsys, pair, pair[0], tmp_path / "out", "--probability")
    assert "disk is full" in sentence
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_said_before_the_work(tmp_path, monkeypatch):
    from catnet.data.volume import Grid
    from catnet.predict import write

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(write.os, "posix_fallocate", full)
    with (
        pytest.raises(UserError, match="No space left"),
        write.probability_file(tmp_path / "a.nii.gz", Grid((4, 4, 4), AFFINE), None),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_in_the_summary_is_taken_away(tmp_path):
    from catnet.predict.plan import Wanted, recorded
    from catnet.predict.query import Target

    targets = [Target(tmp_path, name, probability=True) for name in ("a", "b", "old")]
    targets[2].label.touch()
    with recorded([Wanted(target.label, target) for target in targets]) as names:
        for target in targets:
            target.label.touch()
            target.chance(1).touch()
        names.add("a")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"a_pred.nii.gz", "a_prob_1.nii.gz", "old_pred.nii.gz"}
