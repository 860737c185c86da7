"""The command: from evaluated runs to documents; what may not stand in one table is refused."""

import json
import shutil

import pandas as pd
import pytest
import yaml
from trials import complaint, end_of

from catnet.cli import main
from catnet.evaluations import finished_evaluation, write_evaluation
from catnet.paths import runs_home
from catnet.report.rows import read_rows
from catnet.report.study import study_of_runs
from catnet.runs import open_run_folder

QUICK = ("evaluate.predictions=false", "train.steps=2")
FILES = {
    *("index.html", "rows.csv", "costs.csv", "boxes.svg", "curve.svg", "cost.svg"),
    *(f"{table}.{kind}" for table in ("dice", "comparison") for kind in ("md", "csv", "tex")),
}


@pytest.fixture(scope="session")
def sweep_home(tiny_home, tmp_path_factory):
    """Two runs of a small sweep over rounds, trained and evaluated once."""
    home = tmp_path_factory.mktemp("sweep")
    content = yaml.safe_load((tiny_home / "tiny.yml").read_text())
    content |= {"question": "How many <rounds>?", "vary": {"model.rounds": [0, 1]}}
    (home / "rounds.yml").write_text(yaml.safe_dump(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(tiny_home / "data"))
        patch.setenv("CATNET_CARDS", str(tiny_home / "cards"))
        patch.setenv("CATNET_RUNS", str(home / "runs"))
        for number in ("1", "2"):
            main(["sweep", str(home / "rounds.yml"), *QUICK, "--only", number])
        main(["sweep", str(home / "rounds.yml"), *QUICK])
    return home


@pytest.fixture
def sweep(sweep_home, tiny):
    """The test's own copy of the sweep; gives the folder of it."""
    shutil.copytree(sweep_home / "runs", runs_home())
    (folder,) = (runs_home() / "sweeps").iterdir()
    return folder


def runs():
    return sorted(path for path in runs_home().iterdir() if path.name != "sweeps")


def test_a_sweep_becomes_documents(sweep, tmp_path, capsys):
    folder = tmp_path / "new" / "report"
    status, out, err = end_of(["report", sweep.name, "-o", folder], capsys)
    assert (status, out, err) == (0, f"report: {folder / 'index.html'}\n", "")
    assert {path.name for path in folder.iterdir()} - {".lock"} == FILES
    page = (folder / "index.html").read_text()
    assert "How many &lt;rounds&gt;?" in page
    for word in ("rounds=0", "rounds=1", "untrained (rounds=1)", "copy", "torch", "SHA-256"):
        assert word in page, word
    assert f"catnet report {sweep.name} -o {folder}" in page
    assert json.loads((sweep / "sweep.json").read_text())["command"] in page
    dice = pd.read_csv(folder / "dice.csv", keep_default_na=False)
    measured = read_rows(sweep / "rows.csv")
    mine = measured[
        (measured["variant"] == "rounds=1")
        & (measured["model"] == "catnet")
        & (measured["protocol"] == "EP2")
        & (measured["organ"] == "liver")
        & (measured["metric"] == "dice")
    ]
    told = dice[(dice["variant"] == "rounds=1") & (dice["model"] == "catnet")]
    told = told[(told["protocol"] == "EP2") & (told["organ"] == "liver")]
    assert told["mean"].item() == pytest.approx(mine["value"].mean())


def test_runs_alone_make_the_same_tables(sweep, tmp_path, capsys):
    end_of(["report", sweep, "-o", tmp_path / "one"], capsys)
    end_of(["report", *runs(), "-o", tmp_path / "two"], capsys)
    one, two = (pd.read_csv(tmp_path / name / "dice.csv") for name in ("one", "two"))
    keys = ["variant", "model", "protocol", "organ"]
    pd.testing.assert_frame_equal(
        *(frame.sort_values(keys).reset_index(drop=True) for frame in (one, two))
    )


def test_the_default_place_is_beside_the_runs(sweep, capsys):
    end_of(["report", sweep], capsys)
    assert (sweep / "report" / "index.html").is_file()


def test_a_run_alone_is_headed_by_what_it_is_and_set_beside_copying(sweep, tmp_path, capsys):
    run = runs()[0]
    end_of(["report", run, "-o", tmp_path], capsys)
    page = (tmp_path / "index.html").read_text()
    assert f"<h1>The run {run.name}: catnet, fold 0, seed 0</h1>" in page
    assert "How many" not in page
    compared = pd.read_csv(tmp_path / "comparison.csv")
    assert set(compared["reference"]) == {"copy"}
    assert "Are the differences more than chance?" in page


def test_an_organ_that_only_some_runs_have_is_named(sweep, capsys):
    one, other = runs()
    folder = open_run_folder(one)
    rows = finished_evaluation(folder).rows
    write_evaluation(folder, rows[rows["organ"] != "spleen"])
    sentence = complaint(["report", sweep], capsys)
    assert sentence.startswith(f"the organ spleen is in {other.name}, and not in {one.name}; ")


def test_what_differs_between_runs_is_what_varies(sweep):
    study = study_of_runs([open_run_folder(path) for path in runs()])
    assert study.varied == ("model.rounds",)
    assert {member.label for member in study.members} == {"rounds=0", "rounds=1"}
    one = study_of_runs([open_run_folder(runs()[0])])
    assert (one.varied, one.members[0].label) == ((), "rounds")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere: no such folder, nor a sweep or a run"),
        (["{sweep}", "{run}"], "is a sweep, and a sweep is reported on alone"),
        (["{sweep}", "evaluate.support=each"], "a sweep has its own evaluate settings"),
        (["{run}", "evaluate.support=each"], "has no whole evaluation each-1shot"),
        (["{run}", "{run}"], "is there 2 times"),
        (["{run}", "model.rounds=3"], "would change what was trained"),
        (["{run}", "-o", "/proc/nothing"], "/proc/nothing"),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(sweep, arguments, words, capsys):
    filled = [text.format(sweep=sweep, run=runs()[0]) for text in arguments]
    assert words in complaint(["report", *filled], capsys)


def test_a_lost_run_is_named_with_what_brings_it_back(sweep, capsys):
    lost = runs()[0]
    shutil.rmtree(lost / "evaluations")
    command = json.loads((sweep / "sweep.json").read_text())["command"]
    sentence = complaint(["report", sweep], capsys)
    assert f"{lost}: has no whole evaluation" in sentence
    assert f"give `{command}` again" in sentence
    shutil.rmtree(lost)
    sentence = complaint(["report", sweep], capsys)
    assert sentence.startswith(f"{sweep}: the sweep lacks run {lost.name}; give `{command}` again")


def test_a_half_written_file_of_rows_is_named(sweep, tmp_path, capsys):
    (rows,) = runs()[0].glob("evaluations/*/rows.csv")
    rows.write_bytes(rows.read_bytes()[:-20])
    last = rows.read_text().count("\n") + 1
    command = json.loads((sweep / "sweep.json").read_text())["command"]
    sentence = complaint(["report", sweep, "-o", tmp_path / "out"], capsys)
    assert sentence == f"{rows}, line {last}: is cut off; give `{command}` again"
    alone = complaint(["report", runs()[0], "-o", tmp_path / "out"], capsys)
    assert alone.startswith(f"{rows}, line {last}: is cut off; run `catnet evaluate ")
    rows.write_text(rows.read_text().rpartition("\n")[0] + "\n")
    changed = complaint(["report", runs()[0], "-o", tmp_path / "out"], capsys)
    assert f"{rows.parent}: its rows.csv and settings.json do not fit each other" in changed
    assert not (tmp_path / "out").exists()


def test_a_damaged_cost_is_named(sweep, capsys):
    path = runs()[0] / "cost.json"
    path.write_text("{")
    assert f"{path}: cannot be read" in complaint(["report", sweep], capsys)
