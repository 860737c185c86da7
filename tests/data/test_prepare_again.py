import errno
import gzip
import json
import os

import numpy as np
import pytest

from catnet.data.prepare import prepare
from catnet.data.store import SupervoxelMeta, case_folder, open_cases, write_supervoxels
from catnet.errors import UserError
from catnet.paths import data_home


def names(folder):
    """Every file below a folder, hidden ones too, with its time stamp."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in found}


def worked_on(card, raw):
    return [case for case, _, fresh in prepare(card, raw) if fresh]


def refusal(card, raw):
    with pytest.raises(UserError) as caught:
        list(prepare(card, raw))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_is_done_twice(make_card, raw):
    card = make_card()
    assert worked_on(card, raw) == ["1", "2", "10"]
    before = names(data_home())
    os.utime(raw / "image_1.nii.gz", (1, 1))  # a new date is no new content
    assert worked_on(card, raw) == []
    assert names(data_home()) == before


@pytest.mark.parametrize("name", ["label_2.nii.gz", "image_2.nii.gz"])
def test_a_changed_file_redoes_its_case_alone(make_card, raw, name):
    card = make_card()
    worked_on(card, raw)
    path = raw / name
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"\0"))
    assert worked_on(card, raw) == ["2"]
    assert worked_on(card, raw) == []


def test_a_changed_card_redoes_all_and_a_changed_title_none(make_card, raw):
    worked_on(make_card(), raw)
    assert worked_on(make_card(title="other", folds=3), raw) == []
    other = make_card(clip={"window": [0, 150]})
    with pytest.raises(UserError, match=r"prepared by another version .*`catnet prepare tiny"):
        open_cases(other)
    assert worked_on(other, raw) == ["1", "2", "10"]


BROKEN = {
    "no image": lambda folder: (folder / "image.npy").unlink(),
    "cut label": lambda folder: (folder / "label.npy").write_bytes(b"\x93NUMPY"),
    "short image": lambda folder: os.truncate(folder / "image.npy", 1000),
    "no meta": lambda folder: (folder / "meta.json").unlink(),
    "cut meta": lambda folder: os.truncate(folder / "meta.json", 30),
    "list as meta": lambda folder: (folder / "meta.json").write_text("[]"),
    "number as meta": lambda folder: (folder / "meta.json").write_text('{"sources": 1}'),
}


@pytest.mark.parametrize("damage", BROKEN)
def test_a_damaged_case_is_made_again(make_card, raw, damage):
    card = make_card()
    worked_on(card, raw)
    BROKEN[damage](case_folder(card, "2"))
    assert worked_on(card, raw) == ["2"]
    assert open_cases(card)[1].image.shape == (6, 32, 32)


def test_supervoxels_of_another_image_do_not_stay(make_card, raw):
    card = make_card()
    worked_on(card, raw)
    case = open_cases(card)[0]
    labels = np.zeros((6, 32, 32), dtype=np.int64)
    write_supervoxels(case, labels, SupervoxelMeta(min_size=10, pixels=((1024,),) * 6))
    worked_on(make_card(clip={"window": [0, 150]}), raw)
    assert names(case.folder).keys() == {"image.npy", "label.npy", "meta.json"}


def full_disk(after):
    """`np.save` on a disk that is full after so many arrays."""
    save, written = np.save, []

    def fail(path, *arguments, **options):
        if len(written) < after:
            written.append(path)
            return save(path, *arguments, **options)
        path.write_bytes(b"\x93NUMPY half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return fail


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_full_disk_leaves_whole_cases_only(make_card, raw, monkeypatch, after):
    card = make_card()
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk(after))
        sentence = refusal(card, raw)
    failed = str(case_folder(card, "2" if after >= 2 else "1"))
    assert sentence.startswith(f"{failed}: cannot be written (No space left on device); free")
    whole = {f"tiny/1/{name}" for name in ("image.npy", "label.npy", "meta.json")}
    assert names(data_home()).keys() == (whole if after >= 2 else set())
    assert len(worked_on(card, raw)) == (2 if after >= 2 else 3)


def test_a_full_disk_keeps_the_old_case(make_card, raw, monkeypatch):
    card = make_card()
    worked_on(card, raw)
    before = names(data_home())
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full_disk(1))
        refusal(make_card(clip={"window": [0, 150]}), raw)
    assert names(data_home()) == before
    assert worked_on(card, raw) == []


def test_a_folder_that_cannot_be_written(make_card, raw, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "file"))
    assert "cannot be written (Not a directory); " in refusal(make_card(), raw)


def test_full_disk_while_writing_supervoxels(make_card, raw, monkeypatch):
    card = make_card()
    worked_on(card, raw)
    case = open_cases(card)[0]
    meta = SupervoxelMeta(min_size=10, pixels=((1024,),) * 6)
    labels = np.zeros((6, 32, 32), dtype=np.int64)
    monkeypatch.setattr(np, "save", full_disk(0))
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        write_supervoxels(case, labels, meta)
    assert names(case.folder).keys() == {"image.npy", "label.npy", "meta.json"}


def test_hidden_leftovers_of_a_killed_run_are_no_cases(make_card, raw):
    card = make_card()
    worked_on(card, raw)
    left = data_home() / "tiny" / ".1-4711"
    left.mkdir()
    (left / "meta.json").write_text(json.dumps({"half": True}))
    assert [case.name for case in open_cases(card)] == ["1", "2", "10"]
