"""Every network of the bench goes the whole way: training, rows, labels and pictures."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from trials import untaught

from catnet.cli import main
from catnet.evaluate.run import evaluate, open_predictors
from catnet.evaluations import finished_evaluation
from catnet.model.networks import NETWORKS
from catnet.runs import open_run_folder
from catnet.train import train

CPU = torch.device("cpu")
BASELINES = [name for name in NETWORKS if name != "catnet"]


def silent(done, total, query):
    """No bar."""


@pytest.fixture
def ended(tiny, tiny_home):
    """`ended("panet")`: the folder of a run of three steps, with a picture of the second."""

    def run(name, *settings):
        rounds = [] if name == "catnet" else ["model.rounds=4"]  # the tiny run's is CAT-Net's
        every = "machine.picture_every=2"
        folder = tiny(f"model.name={name}", *rounds, "train.steps=3", every, *settings)
        train(folder, report=lambda progress: None, say=lambda text: None)
        return open_run_folder(folder.path)

    return run


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_trained_and_evaluated_under_its_own_name(name, ended):
    folder = ended(name)
    log = [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3]
    assert all(np.isfinite(line["loss"]) for line in log)
    evaluation = evaluate(folder, device=CPU, report=silent)
    rows = evaluation.rows
    assert list(dict.fromkeys(rows["model"])) == ["copy", "untrained", name]
    counts = rows.groupby(["model", "protocol"]).size()
    assert len(set(counts)) == 1
    assert np.isfinite(rows["value"]).all()
    pd.testing.assert_frame_equal(finished_evaluation(folder).rows, rows)
    found = {path.suffix for path in evaluation.path.rglob("*_by_*")}
    assert found == {".png", ".gz", ".npz"}
    predictors = open_predictors(folder, CPU)
    assert type(predictors[name].model) is type(predictors["untrained"].model) is NETWORKS[name]


@pytest.mark.parametrize("name", BASELINES)
def test_the_table_and_the_margin_name_the_network(name, tiny, capsys):
    folder = tiny(f"model.name={name}", "model.rounds=4", "data.group=kidneys")
    untaught(folder)
    with pytest.raises(SystemExit):
        main(["evaluate", str(folder.path), "--beat-copy", "200", "evaluate.pictures=false"])
    out, err = capsys.readouterr()
    assert f" {name} " in out
    assert "200 were demanded" in err


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("command", [["attend", "--case", "1", "--slice", "5"], ["similarity"]])
def test_what_shows_rounds_is_for_catnet(name, command, tiny, capsys):
    folder = tiny(f"model.name={name}", "model.rounds=4")
    untaught(folder)
    with pytest.raises(SystemExit) as caught:
        main([*command, str(folder.path)])
    assert caught.value.code == 2
    assert f"shows the rounds of CAT-Net, and {name} has none" in capsys.readouterr().err
