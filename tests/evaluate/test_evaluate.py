import json
import shutil
from itertools import permutations

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from oracles import Everything, Truth
from trials import untaught

from catnet.errors import UserError
from catnet.evaluate import run as module
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.run import evaluate, open_predictors
from catnet.evaluations import finished_evaluation
from catnet.model.catnet import CATNet
from catnet.model.networks import initial_model, load_network
from catnet.runs import open_run_folder

CPU = torch.device("cpu")
ORGANS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
COLUMNS = [
    *("run", "card", "fold", "seed", "setting", "policy", "shots", "support"),
    *("model", "protocol", "query", "organ", "metric", "value"),
]
METRICS = {"dice", "iou", "hd95", "surface_dice"}
PLAIN = ("evaluate.predictions=false", "evaluate.pictures=false")


def silent(done, total, query):
    """No bar."""


def quick(folder):
    return evaluate(folder, device=CPU, report=silent)


@pytest.fixture
def stand_in(monkeypatch):
    """Put another predictor in the place of the trained network."""

    def use(predictor, **others):
        found = {"catnet": predictor, **others}
        monkeypatch.setattr(module, "open_predictors", lambda folder, device: found)

    return use


def test_the_truth_scores_full_marks_on_every_row(trained, cases, stand_in):
    stand_in(Truth(cases))
    rows = quick(trained(*PLAIN, "evaluate.support=each")).rows
    assert set(rows["metric"]) == METRICS
    expected = rows["metric"].map({"dice": 100, "iou": 100, "surface_dice": 100, "hd95": 0})
    np.testing.assert_allclose(rows["value"], expected)


def test_a_prediction_lands_on_the_scanners_grid(trained, cases, stand_in, tiny_home):
    stand_in(Truth(cases), copy=Everything())
    folder = trained("evaluate.support=each", "evaluate.pictures=false")
    found = sorted((quick(folder).path / "predictions").rglob("*.nii.gz"))
    pairs = [f"{query}_by_{support}.nii.gz" for support, query in permutations("123", 2)]
    assert {(path.parent.name, path.name) for path in found} == {
        (protocol, name) for protocol in ("EP1", "EP2") for name in pairs
    }
    orientations = set()
    for path in found:
        prediction = nib.load(path)
        raw = nib.load(tiny_home / "raw" / f"label_{path.name[0]}.nii.gz")
        np.testing.assert_array_equal(prediction.affine, raw.affine)
        assert np.issubdtype(prediction.get_data_dtype(), np.integer)
        np.testing.assert_array_equal(np.asarray(prediction.dataobj), np.asarray(raw.dataobj))
        orientations.add(nib.aff2axcodes(raw.affine))
    assert {"".join(codes) for codes in orientations} == {"LPS", "PSR", "RPI"}


def test_rows_are_tidy(trained):
    folder = trained(*PLAIN)
    evaluation = quick(folder)
    rows = evaluation.rows
    assert list(rows.columns) == COLUMNS
    key = [name for name in COLUMNS if name != "value"]
    assert not rows.duplicated(key).any()
    assert len(rows) == 3 * 2 * len(METRICS) * len(ORGANS) * 2  # models, protocols, ..., queries
    assert np.isfinite(rows["value"]).all()
    assert list(dict.fromkeys(rows["model"])) == ["copy", "untrained", "catnet"]
    assert list(dict.fromkeys(rows["protocol"])) == ["EP1", "EP2"]
    assert set(rows["run"]) == {evaluation.path.parents[1].name}
    facts = rows[["card", "fold", "seed", "setting", "policy", "shots"]].drop_duplicates()
    assert facts.values.tolist() == [["tiny", 0, 0, "1", "extra", 1]]
    read = finished_evaluation(folder)
    assert read.path == evaluation.path
    pd.testing.assert_frame_equal(read.rows, rows)


def test_rows_that_were_cut_off_are_no_evaluation(trained):
    folder = trained(*PLAIN, "evaluate.baselines=[]", "evaluate.protocols=[EP1]")
    assert finished_evaluation(folder) is None
    path = quick(folder).path / "rows.csv"
    assert finished_evaluation(folder) is not None
    text = path.read_text()
    path.write_text(text[: text.rindex("\n", 0, -1) + 1])
    assert finished_evaluation(folder) is None


def pairs_of(rows):
    return {tuple(pair) for pair in rows[["support", "query"]].values.tolist()}


@pytest.fixture
def second_fold(tiny, trained_home):
    """A run of fold 1 (cases 4, 5, 6 and the extra 1), with the weights of another one."""

    def make(*overrides):
        folder = tiny("data.fold=1")
        untaught(folder, load_network(trained_home / "model"))
        return open_run_folder(folder.path, overrides=[*PLAIN, *overrides])

    return make


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["evaluate.support=extra"], {("1", "4"), ("1", "5"), ("1", "6")}),
        (["evaluate.support=extra", "evaluate.shots=2"], {("1+6", "4"), ("1+6", "5")}),
        (
            ["evaluate.support=index", "evaluate.support_index=2"],
            {("5", "6"), ("5", "1"), ("5", "4")},
        ),
        (["evaluate.support=each"], set(permutations("1456", 2))),
    ],
)
def test_policies_choose_who_supports_whom(overrides, expected, second_fold, stand_in):
    stand_in(Everything())
    rows = quick(second_fold(*overrides)).rows
    assert pairs_of(rows) == expected
    assert set(rows["fold"]) == {1}


def test_an_organ_that_a_case_lacks_has_no_row(second_fold, stand_in):
    stand_in(Everything())
    rows = quick(second_fold("evaluate.support=each")).rows
    with_spleen = pairs_of(rows[rows["organ"] == "spleen"])
    assert with_spleen == set(permutations("146", 2))
    assert pairs_of(rows[rows["organ"] == "liver"]) == set(permutations("1456", 2))


def test_only_the_tested_group_has_rows(tiny, trained_home, stand_in):
    stand_in(Everything())
    folder = tiny("data.group=kidneys")
    untaught(folder, load_network(trained_home / "model"))
    rows = quick(open_run_folder(folder.path, overrides=PLAIN)).rows
    assert set(rows["organ"]) == {"right kidney", "left kidney"}


def test_the_untrained_baseline_is_where_the_run_began(trained):
    folder = trained()
    found = open_predictors(folder, CPU)
    expected = initial_model(folder.run.model, seed=folder.run.seed).state_dict()
    for name, value in found["untrained"].model.state_dict().items():
        assert torch.equal(value, expected[name])
    assert not found["untrained"].model.training
    trained_state = found["catnet"].model.state_dict()
    assert not all(torch.equal(trained_state[name], expected[name]) for name in expected)
    assert list(open_predictors(trained_without(folder), CPU)) == ["catnet"]


def trained_without(folder):
    return open_run_folder(folder.path, overrides=["evaluate.baselines=[]"])


def test_evaluating_twice_says_the_same(trained):
    folder = trained(*PLAIN)
    first = quick(folder)
    text = (first.path / "rows.csv").read_text()
    assert quick(folder).path == first.path
    assert (first.path / "rows.csv").read_text() == text
    other = open_run_folder(folder.path, overrides=[*PLAIN, "evaluate.batch=1"])
    assert quick(other).path == first.path
    stricter = open_run_folder(folder.path, overrides=[*PLAIN, "evaluate.tolerance=9"])
    assert quick(stricter).path != first.path


def test_the_bar_hears_of_every_query(trained, stand_in):
    stand_in(Everything())
    heard = []
    evaluate(trained(*PLAIN), device=CPU, report=lambda *what: heard.append(what))
    assert heard == [(0, 2, "1"), (1, 2, "2"), (2, 2, "")]


def test_a_picture_a_query(trained):
    folder = trained("evaluate.protocols=[EP1]", "evaluate.baselines=[]")
    pictures = quick(folder).path / "pictures"
    assert sorted(path.name for path in pictures.iterdir()) == ["1_by_3.png", "2_by_3.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures.iterdir())


def test_a_run_in_bfloat16_is_evaluated_so(tiny, trained_home):
    folder = tiny("train.precision=bfloat16")
    untaught(folder, load_network(trained_home / "model"))
    evaluation = quick(open_run_folder(folder.path, overrides=["evaluate.baselines=[untrained]"]))
    assert np.isfinite(evaluation.rows["value"]).all()
    assert open_predictors(folder, CPU)["catnet"].precision == torch.bfloat16
    image = np.random.default_rng(0).normal(size=(1, 64, 64)).astype(np.float32)
    exact, rounded = (
        NetworkPredictor(CATNet(folder.run.model), device=CPU, precision=precision).query(image)
        for precision in (torch.float32, torch.bfloat16)
    )
    assert (exact.feature.dtype, rounded.feature.dtype) == (torch.float32, torch.bfloat16)


def test_a_run_that_has_not_ended_is_no_evaluation(tiny):
    folder = tiny()
    with pytest.raises(UserError, match="training has not ended; run the `catnet train` command"):
        quick(open_run_folder(folder.path))


@pytest.mark.parametrize("change", ["train.steps=3", "data.fold=1", "model.rounds=1", "seed=7"])
def test_what_was_trained_cannot_be_overridden(change, trained):
    with pytest.raises(UserError, match=f"{change} would change what was trained; only the set"):
        trained(change)


def test_nothing_in_common_is_no_table(trained, cases, stand_in, monkeypatch):
    stand_in(Truth(cases))
    monkeypatch.setattr("catnet.evaluate.tasks.plan", lambda *a, **k: ())
    folder = trained(*PLAIN)
    with pytest.raises(UserError, match="no organ is shown by both"):
        quick(folder)
    assert not (folder.path / "evaluations").exists()


@pytest.mark.parametrize("change", ["a case more", "another scan"])
def test_a_run_is_tested_on_the_data_it_was_split_from(
    change, trained, tiny_home, tmp_path, monkeypatch
):
    """Else a case that trained might be tested, and nobody would know."""
    folder = trained(*PLAIN)
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    meta = tmp_path / "data" / "tiny" / "4" / "meta.json"
    if change == "a case more":
        more = shutil.copytree(meta.parent, meta.parents[1] / "0") / "meta.json"
        more.write_text(more.read_text().replace('"case":"4"', '"case":"0"'))
    else:
        content = json.loads(meta.read_text())
        content["sources"]["image"] = "0" * 64
        meta.write_text(json.dumps(content))
    with pytest.raises(UserError, match="have changed since this run was trained"):
        quick(open_run_folder(folder.path, overrides=PLAIN))


def test_a_run_keeps_the_card_that_it_was_trained_by(trained, tmp_path, monkeypatch):
    folder = trained(*PLAIN)
    before = quick(folder).rows
    monkeypatch.setenv("CATNET_CARDS", str(tmp_path / "none"))
    again = open_run_folder(folder.path, overrides=PLAIN)
    assert (again.card, again.identity) == (folder.card, folder.identity)
    pd.testing.assert_frame_equal(quick(again).rows, before)


def test_a_network_of_other_settings_is_not_the_runs(trained):
    folder = trained(*PLAIN)
    path = folder.model / "model.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"mask_on": "none"}))
    with pytest.raises(UserError, match="its settings are not those of the run"):
        quick(folder)
