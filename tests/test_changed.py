"""A run stands on one data set: whatever changes below it is noticed before a number is wrong."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from trials import assert_same, complaint, end_of, killed, run

from catnet.data.card import load_card
from catnet.data.store import SUPERVOXELS, open_cases, write_supervoxels
from catnet.data.supervoxels import supervoxels
from catnet.errors import UserError
from catnet.question import load_run
from catnet.runs import find_run_folder

CHANGED = r"its prepared cases or their supervoxels have changed since this run was trained; bring"


@pytest.fixture
def own(tiny, tiny_home, tmp_path, monkeypatch):
    """Raw scans and prepared cases that the test may change."""
    for name in ("raw", "data"):
        shutil.copytree(tiny_home / name, tmp_path / name)
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    return tmp_path


def prepare(own, capsys):
    for command in (["prepare", "tiny", "--raw", own / "raw"], ["supervoxels", "tiny"]):
        assert end_of(command, capsys)[0] == 0


def brighten(own, *, case):
    path = own / "raw" / f"image_{case}.nii.gz"
    scan = nib.load(path)
    voxels = np.asarray(scan.dataobj).copy()
    voxels[20:30, 20:30] += 40
    nib.save(nib.Nifti1Image(voxels, scan.affine, scan.header), path)


@pytest.mark.parametrize("case", [1, 6])  # tests in fold 0; trains there
def test_cases_that_were_prepared_from_other_scans(case, own, tiny, tiny_home, trained, capsys):
    begun, ended = killed(tiny(), stop=5), trained()
    shutil.copytree(own / "raw", own / "former")
    brighten(own, case=case)
    prepare(own, capsys)
    with pytest.raises(UserError, match=CHANGED):
        run(begun)
    for command in (["evaluate", ended.path], ["train", tiny_home / "tiny.yml"]):
        assert "have changed since this run was trained" in complaint(command, capsys)
    shutil.rmtree(own / "raw")
    shutil.move(own / "former", own / "raw")
    prepare(own, capsys)
    assert_same(run(tiny("name=straight")), run(begun))


def touch(folder, name):
    """Change one value of an array and leave its file as long as it was."""
    path = folder / f"{name}.npy"
    array = np.load(path)
    array.flat[array.size // 2] += 1
    np.save(path, array)


@pytest.mark.parametrize("name", ["image", "supervoxels"])
def test_a_value_that_has_changed_in_what_trains(name, own, tiny, tiny_home, capsys):
    begun = killed(tiny(), stop=5)
    folder = own / "data" / "tiny" / "6"
    touch(folder, name)
    sentence = complaint(["train", tiny_home / "tiny.yml"], capsys)
    assert sentence.startswith(f"{folder / name}.npy: holds other values than were written; delete")
    shutil.rmtree(folder)
    prepare(own, capsys)
    assert_same(run(tiny("name=straight")), run(begun))


@pytest.mark.parametrize("name", ["image", "label"])
def test_a_value_that_has_changed_in_what_is_tested(name, own, trained, capsys):
    folder = own / "data" / "tiny" / "1"
    touch(folder, name)
    sentence = f"{folder / name}.npy: holds other values than were written"
    assert sentence in complaint(["evaluate", trained().path], capsys)
    _, out, _ = end_of(["check", "tiny", "-o", own / "sheet.png", "--strict"], capsys)
    assert "holds other values than were written" in " ".join(out.split())


def test_settings_that_were_edited_in_the_folder_of_a_run(trained, capsys):
    path = trained().path / "run.yml"
    path.write_text(path.read_text().replace("rounds: 2", "rounds: 1"))
    sentence = complaint(["evaluate", path.parent], capsys)
    assert "run.yml or card.yml there were edited since this run began; bring them" in sentence


def recut(case, *, min_size):
    """Other supervoxels in the name of the same setting, as another version might cut them."""
    labels = supervoxels(np.asarray(case.image), min_size=min_size)
    count = int(labels.max()) + 1
    pixels = tuple(tuple(np.bincount(s.ravel(), minlength=count).tolist()) for s in labels)
    write_supervoxels(case, labels, case.supervoxel_meta.model_copy(update={"pixels": pixels}))


def test_supervoxels_that_were_cut_anew_otherwise(own, tiny, capsys):
    folder = killed(tiny(), stop=5)
    tested, *_, trains = open_cases(folder.card)
    recut(tested, min_size=150)  # nothing is learnt from these
    recut(trains, min_size=150)
    with pytest.raises(UserError, match=CHANGED):
        run(folder)
    (trains.folder / SUPERVOXELS).unlink()
    assert end_of(["supervoxels", "tiny"], capsys)[0] == 0
    assert_same(run(tiny("name=straight")), run(folder))


def test_supervoxels_of_other_settings_are_another_run(own, tiny, tiny_home, monkeypatch, capsys):
    folder = killed(tiny(), stop=5)
    shutil.copytree(tiny_home / "cards", own / "cards")
    monkeypatch.setenv("CATNET_CARDS", str(own / "cards"))
    card = own / "cards" / "tiny.yml"
    card.write_text(card.read_text().replace("min_size: 100", "min_size: 150"))
    assert end_of(["supervoxels", "tiny"], capsys)[0] == 0
    assert find_run_folder(load_run(tiny_home / "tiny.yml")).path != folder.path
    assert load_card("tiny").identity() != folder.card.identity()
    with pytest.raises(UserError, match=CHANGED):
        run(folder)


def test_a_trained_run_is_evaluated_without_supervoxels(own, trained, capsys):
    for path in (own / "data" / "tiny").glob("*/supervoxels.*"):
        path.unlink()
    command = ["evaluate", trained().path, "evaluate.baselines=[]", "evaluate.pictures=false"]
    assert end_of(command, capsys)[0] == 0


def test_a_begun_run_without_provenance_does_not_go_on(tiny, tiny_home, capsys):
    folder = killed(tiny(), stop=5)
    path = folder.path / "provenance.json"
    text = path.read_text()
    path.unlink()
    said = complaint(["train", tiny_home / "tiny.yml"], capsys)
    assert said.startswith(f"{path}: is gone, and with it what the run was trained on; bring it")
    path.write_text("{}")
    assert "is gone" in complaint(["train", tiny_home / "tiny.yml"], capsys)
    path.write_text(text)
    assert_same(run(tiny("name=straight")), run(folder))


def test_a_trained_run_without_provenance_is_not_evaluated(trained, capsys):
    folder = trained()
    (folder.path / "provenance.json").unlink()
    for command in ("evaluate", "view"):
        assert "provenance.json: is gone" in complaint([command, folder.path], capsys), command


def test_a_provenance_that_does_not_tell_all_is_refused(tiny):
    folder = killed(tiny(), stop=5)
    path = folder.path / "provenance.json"
    known = json.loads(path.read_text())
    for missing in ("identity", "data"):
        path.write_text(json.dumps({key: known[key] for key in known if key != missing}))
        with pytest.raises(UserError, match=CHANGED):
            run(folder)
    del known["supervoxels"]  # what was begun before there was this fact
    path.write_text(json.dumps(known))
    assert run(folder).trained
    assert "supervoxels" in json.loads(path.read_text())


def test_a_run_that_saved_nothing_begins_again_on_what_is_there(own, tiny, capsys):
    folder = killed(tiny(), stop=2)
    brighten(own, case=6)
    prepare(own, capsys)
    assert_same(run(tiny("name=straight")), run(folder))
