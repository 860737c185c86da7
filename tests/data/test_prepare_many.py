"""Many cases: in several processes, with bad ones among them, on other grids, after a kill."""

import os
import shutil

import nibabel as nib
import numpy as np
import pytest

from catnet.cli import main
from catnet.data.prepare import CasesFailedError, prepare
from catnet.data.store import case_folder, open_cases
from catnet.errors import UserError
from catnet.paths import data_home


def content(card):
    return {
        path.relative_to(data_home()).as_posix(): path.read_bytes()
        for path in sorted((data_home() / card.name).rglob("*"))
        if path.is_file()
    }


def test_several_processes_make_the_same_cases_in_the_same_order(make_card, raw):
    card = make_card()
    assert list(prepare(card, raw, jobs=2)) == [("1", 3, True), ("2", 3, True), ("10", 3, True)]
    together = content(card)
    assert list(prepare(card, raw, jobs=2)) == [("1", 3, False), ("2", 3, False), ("10", 3, False)]
    shutil.rmtree(data_home() / "tiny")
    list(prepare(card, raw))
    assert content(card) == together
    assert len(together) == 9


def test_a_mistake_in_another_process_is_the_same_sentence(make_card, raw):
    (raw / "label_2.nii.gz").write_bytes(b"text")
    with pytest.raises(UserError, match=r"label_2\.nii\.gz: not a readable NIfTI"):
        list(prepare(make_card(), raw, jobs=2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_bad_cases_stop_no_other_and_are_listed(make_card, raw, jobs):
    (raw / "label_2.nii.gz").unlink()
    (raw / "image_10.nii.gz").write_bytes(b"text")
    card = make_card()
    steps = prepare(card, raw, jobs=jobs, keep_going=True)
    assert next(steps) == ("1", 3, True)
    with pytest.raises(CasesFailedError) as caught:
        next(steps)
    assert [case.name for case in open_cases(card)] == ["1"]
    assert list(caught.value.failed) == ["2", "10"]
    assert "label_2.nii.gz is not there" in caught.value.failed["2"]
    assert "image_10.nii.gz: not a readable NIfTI" in caught.value.failed["10"]
    assert str(caught.value).startswith("2 of 3 cases could not be prepared (2, 10); mend")
    with pytest.raises(UserError, match="label_2"):
        list(prepare(card, raw))


def test_the_command_lists_bad_cases_at_the_end(write_card, raw, capsys):
    (raw / "image_2.nii.gz").write_bytes(b"text")
    with pytest.raises(SystemExit) as end:
        main(["prepare", str(write_card()), "--raw", str(raw), "--keep-going", "--jobs", "2"])
    assert end.value.code == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[-1].startswith("2 cases in ")
    assert "image_2.nii.gz: not a readable NIfTI" in err.splitlines()[0]
    assert err.splitlines()[-1].startswith("catnet: 1 of 3 cases could not be prepared (2)")


def killed(_):
    os._exit(9)


def test_a_killed_worker_is_a_sentence(make_card, raw, monkeypatch):
    monkeypatch.setattr("catnet.data.prepare.work", killed)
    with pytest.raises(UserError, match=r"a process was killed, .* fewer --jobs"):
        list(prepare(make_card(), raw, jobs=2))


def test_what_a_killed_process_left_is_removed(make_card, raw):
    card = make_card()
    other = data_home() / "tiny" / ".cache"
    dead = data_home() / "tiny" / ".1-99999999"
    alive = data_home() / "tiny" / f".2-{os.getpid()}"
    for folder in (dead, alive, other):
        folder.mkdir(parents=True)
        (folder / "image.npy").write_bytes(b"half")
    list(prepare(card, raw))
    assert not dead.exists()
    assert other.is_dir()
    assert sorted(case.name for case in open_cases(card)) == ["1", "10", "2"]


@pytest.fixture
def elsewhere(raw, write_scan):
    """Case 2's label at half the voxel size in the plane, turned to other axes."""
    label = np.asarray(nib.load(raw / "label_2.nii.gz").dataobj)
    fine = label.repeat(2, axis=0).repeat(2, axis=1)[::-1]
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[:2, 3] = (-62.5, -0.5)
    write_scan(raw / "label_2.nii.gz", np.ascontiguousarray(fine), affine)
    return raw


def test_a_label_on_another_grid_prints_both_affines(make_card, elsewhere):
    with pytest.raises(UserError) as caught:
        list(prepare(make_card(), elsewhere))
    sentence = str(caught.value)
    assert "give --resample-labels" in sentence
    assert "label [1 0 0 -62.5; 0 1 0 -0.5; 0 0 4 0]" in sentence
    assert "image [-2 0 0 0; 0 2 0 0; 0 0 4 0]" in sentence
    assert "\n" not in sentence


def test_a_label_on_another_grid_is_resampled_on_request(make_card, raw, elsewhere, capsys):
    card = make_card()
    list(prepare(card, elsewhere, resample_labels=True))
    first, second, _ = open_cases(card)
    np.testing.assert_array_equal(first.label, second.label)
    assert "label_2.nii.gz: on a grid of its own, resampled" in second.meta.remarks[0]
    assert first.meta.remarks == ()
    assert case_folder(card, "2").is_dir()


def test_cases_may_be_chosen_by_name(make_card, raw):
    assert [case for case, _, _ in prepare(make_card(cases="1*"), raw)] == ["1", "10"]
