import csv
import json
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.orientations import aff2axcodes
from scenes import make_card

from catnet.data.store import open_cases
from catnet.data.volume import Grid, read_volume, standard_grid
from catnet.evaluate.cases import segment_case
from catnet.evaluate.predictors import CopyPredictor, Support
from catnet.evaluate.run import open_predictors
from catnet.predict.models import Model
from catnet.predict.query import Target, draw
from catnet.predict.scans import Look, Prepared, prepare_support
from catnet.predict.session import Request, Session, choose_organs, open_session, probabilities
from catnet.predict.write import label_type
from catnet.runs import open_run_folder


def labels_of(path):
    return np.asarray(nib.load(path).dataobj)


def summary_of(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", [2, 3, 4])
def test_the_result_lies_on_the_query_s_own_grid(predict, raw, case):
    found = nib.load(predict(case) / f"image_{case}_pred.nii.gz")
    query = nib.load(raw / f"image_{case}.nii.gz")
    assert found.shape == query.shape
    assert aff2axcodes(found.affine) == aff2axcodes(query.affine)
    np.testing.assert_array_equal(found.affine, query.affine)
    assert found.get_data_dtype() == np.uint8
    assert found.dataobj.slope == 1
    assert set(np.unique(found.dataobj)) == {0, 1, 2, 3, 4}


def test_the_header_is_kept(predict, raw, tmp_path):
    scan = nib.load(raw / "image_2.nii.gz")
    header = scan.header.copy()
    header["descrip"] = b"of a scanner"
    query = nib.Nifti1Image(np.asarray(scan.dataobj), None, header)
    query.set_qform(scan.affine, 1)
    query.set_sform(scan.affine, 2)
    query.header.set_xyzt_units("mm", "sec")
    query.header.set_slope_inter(0.5, -3)
    query.header["cal_max"] = 900
    nib.save(query, tmp_path / "kept.nii")
    header = nib.load(predict(tmp_path / "kept.nii") / "kept_pred.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 2)
    assert header.get_xyzt_units() == ("mm", "sec")
    assert header["descrip"].item() == b"of a scanner"
    assert header.get_intent()[0] == "label"
    assert float(header["cal_max"]) == 0
    np.testing.assert_array_equal(header.get_qform(), query.header.get_qform())


@pytest.mark.parametrize(
    ("numbers", "kind"),
    [([1, 255], np.uint8), ([256, 1], np.int16), ([32768], np.uint16), ([65535], np.uint16)],
)
def test_the_numbers_fit_their_type(numbers, kind):
    assert label_type(numbers) is kind


def test_large_numbers_come_back(predict, raw, tmp_path, own_grid):
    scan = read_volume(raw / "label_1.nii.gz")
    voxels = np.where(scan.voxels == 1, 600, 0).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, scan.grid.affine), tmp_path / "l.nii.gz")
    out = predict(2, support=(), more=["--support", raw / "image_1.nii.gz", tmp_path / "l.nii.gz"])
    assert set(np.unique(labels_of(out / "image_2_pred.nii.gz"))) == {0, 600}


def test_memory_does_not_grow_with_the_organs(tmp_path):
    """Twelve organs of a volume whose probabilities alone would take 240 MB."""
    shape, organs = (160, 160, 200), range(1, 13)
    grid = Grid(shape, np.diag([-1.0, 1.0, 1.0, 1.0]))
    image = np.zeros((100, 160, 160), np.float32)
    coarse = standard_grid(grid, orientation="LAS", spacing=(1.0, 1.0, 2.0))
    look = Look("MR", (1.0, 1.0, 1.0), (160.0, 160.0, 200.0), "")
    query = Prepared(tmp_path / "q.nii.gz", image, coarse, grid, look)
    mask = torch.zeros(1, 1, 160, 160)
    supports = {number: Support(None, mask + (number == 7)) for number in organs}
    names = {number: str(number) for number in organs}
    model = Model("copy", CopyPredictor(), make_card())
    session = Session(model, make_card(), (), names, supports)
    tracemalloc.start()
    try:
        canvas = draw(session, query, Target(tmp_path, "q"), None, lambda done, total: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (canvas.labels == 7).all()
    assert peak < 60e6, peak


def test_copying_to_the_support_itself_is_its_middle_slice_everywhere(predict, raw, capsys):
    found = labels_of(predict(1, more=["--organ", "1"]) / "image_1_pred.nii.gz")
    assert "has the same voxels as the support image_1.nii.gz" in capsys.readouterr().err
    truth = nib.load(raw / "label_1.nii.gz")
    along = next(n for n, code in enumerate(aff2axcodes(truth.affine)) if code in "SI")
    mask = np.moveaxis(np.asarray(truth.dataobj) == 1, along, 0)
    shown = np.flatnonzero(mask.any(axis=(1, 2)))
    middle = mask[(shown[0] + shown[-1] + 1) // 2], mask[(shown[0] + shown[-1]) // 2]
    found = np.moveaxis(found, along, 0)
    assert (found == found[0]).all()
    assert any(np.array_equal(found[0] == 1, one) for one in middle)


def test_predict_is_ep2_of_the_evaluation(predict, trained, tiny, raw):
    """The same slices of the same prepared cases, so the same labels where grids agree."""
    folder = trained("evaluate.protocols=[EP2]")
    cases = {case.name: case for case in open_cases(folder.card)}
    network = open_predictors(folder, torch.device("cpu"))["catnet"]
    organs = folder.card.organs
    wanted = segment_case(
        {"catnet": network}, cases["2"], [cases["1"]], organs=organs, settings=folder.run.evaluate
    )
    expected = wanted.fused["catnet", "EP2"]
    session = open_session(
        Request(
            str(folder.path),
            ((raw / "image_1.nii.gz", raw / "label_1.nii.gz"),),
            accelerator="cpu",
        )
    )
    stack = np.concatenate(list(probabilities(session, np.array(cases["2"].image))), axis=1)
    best = stack.max(axis=0)
    np.testing.assert_allclose(np.maximum(best, 0.5), expected.best, atol=1e-6)
    out = predict(2, model=str(folder.path), more=["--device", "cpu"])
    found = labels_of(out / "image_2_pred.nii.gz")
    counts = np.bincount(found.ravel(), minlength=5)[1:]
    assert counts.tolist() == np.bincount(expected.label.ravel(), minlength=5)[1:].tolist()
    assert [organ["name"] for organ in summary_of(out)["image_2"]["organs"]] == list(organs)


def test_probabilities_are_written_and_fused(predict, raw, own_grid):
    out = predict(
        2, support=(1, 4), more=[*own_grid, "--probability", "--organ", "1", "4=Milz, groß"]
    )
    query = nib.load(raw / "image_2.nii.gz")
    chances = {}
    for number in (1, 4):
        image = nib.load(out / f"image_2_prob_{number}.nii.gz")
        assert image.get_data_dtype() == np.float32
        np.testing.assert_array_equal(image.affine, query.affine)
        chances[number] = np.asarray(image.dataobj)
        assert set(np.unique(chances[number])) == {0, 0.5, 1}  # the mean of two masks
    labels = labels_of(out / "image_2_pred.nii.gz")
    best = np.maximum(chances[1], chances[4])
    np.testing.assert_array_equal(labels == 0, best <= 0.5)
    first, fourth = chances[1] > 0.5, chances[4] > 0.5
    np.testing.assert_array_equal(labels == 4, fourth & ~(first & (chances[1] >= chances[4])))
    assert [o["name"] for o in summary_of(out)["image_2"]["organs"]] == ["liver", "Milz, groß"]


def test_the_summary_says_what_the_label_holds(predict, own_grid, capsys):
    out = predict(2, 3, more=own_grid)
    printed = capsys.readouterr().out
    with (out / "summary.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["query"] for row in rows} == {"image_2", "image_3"}
    for name, record in summary_of(out).items():
        image = nib.load(out / record["label"])
        labels = np.asarray(image.dataobj)
        voxel = abs(np.linalg.det(image.affine[:3, :3])) / 1000
        along = next(n for n, code in enumerate(aff2axcodes(image.affine)) if code in "SI")
        for organ in record["organs"]:
            mask = labels == organ["number"]
            assert organ["volume_ml"] == pytest.approx(mask.sum() * voxel, abs=1e-3)
            shown = mask.any(axis=tuple({0, 1, 2} - {along}))
            assert organ["slices"] == shown.sum()
            assert organ["confidence"] == 1
            assert f"{organ['volume_ml']:.1f}" in printed
            (row,) = [r for r in rows if r["query"] == name and int(r["number"]) == organ["number"]]
            assert float(row["volume_ml"]) == organ["volume_ml"]
    predict(4)
    assert set(summary_of(out)) == {"image_2", "image_3", "image_4"}


def test_an_organ_that_is_nowhere_has_no_confidence(predict, raw, tmp_path):
    """Two supports that agree nowhere: their mean is one half at most, which is background."""
    scan = read_volume(raw / "label_1.nii.gz")
    more = []
    for name, half in (("low", slice(16, 32)), ("high", slice(32, 48))):
        voxels = np.zeros_like(scan.voxels)
        voxels[half, 20:40, 4:8] = 1
        nib.save(nib.Nifti1Image(voxels, scan.grid.affine), tmp_path / f"{name}.nii.gz")
        more += ["--support", raw / "image_1.nii.gz", tmp_path / f"{name}.nii.gz"]
    out = predict(2, support=(), more=more)
    (organ,) = summary_of(out)["image_2"]["organs"]
    assert (organ["volume_ml"], organ["confidence"], organ["slices"]) == (0, None, 0)
    assert "nothing was found of label 1" in summary_of(out)["image_2"]["warnings"]
    assert not labels_of(out / "image_2_pred.nii.gz").any()


def test_two_processes_do_what_one_does(predict, trained, tmp_path):
    run = str(trained().path)
    one = predict(2, 3, 4, model=run, more=["--device", "cpu"], output=tmp_path / "one")
    more = ["--device", "cpu", "--jobs", "2"]
    two = predict(2, 3, 4, model=run, more=more, output=tmp_path / "two")
    assert summary_of(one) == summary_of(two)
    for path in one.glob("*.nii.gz"):
        assert labels_of(path).tobytes() == labels_of(two / path.name).tobytes()


def test_names_with_spaces_and_other_letters(predict, raw, tmp_path):
    odd = tmp_path / "Höhe über  ñ.nii.gz"
    odd.write_bytes((raw / "image_2.nii.gz").read_bytes())
    folder = tmp_path / "Größe 2"
    predict(odd, output=folder)
    assert (folder / "Höhe über  ñ_pred.nii.gz").is_file()
    assert list(summary_of(folder)) == ["Höhe über  ñ"]


def test_names_of_a_card_hold_only_where_it_knows_every_number(trained, raw):
    card = open_run_folder(trained().path).card
    shot = prepare_support(card, raw / "image_1.nii.gz", raw / "label_1.nii.gz")
    assert choose_organs((), [shot], card=card) == {n: o for o, n in card.organs.items()}
    assert choose_organs([(4, "x")], [shot], card=card) == {4: "x"}
    fewer = card.model_copy(update={"organs": {"spleen": 1}})
    assert choose_organs((), [shot], card=fewer) == {n: f"label {n}" for n in (1, 2, 3, 4)}
    others = card.model_copy(update={"organs": {"liver": 1}, "other_labels": (2, 3, 4)})
    assert choose_organs((), [shot], card=others) == {1: "liver"}


def test_supports_that_lack_the_organ_are_left_out(raw):
    """Case 5 has no spleen: its shot is no slice without one."""
    pairs = tuple((raw / f"image_{n}.nii.gz", raw / f"label_{n}.nii.gz") for n in (1, 5))
    session = open_session(Request("copy", pairs))
    assert isinstance(session.model.predictor, CopyPredictor)
    shots = {number: support.mask.shape[1] for number, support in session.supports.items()}
    assert shots == {1: 2, 2: 2, 3: 2, 4: 1}
    assert all(support.mask.sum(dim=(2, 3)).min() > 0 for support in session.supports.values())
