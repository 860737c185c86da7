"""The quick form of `catnet bench` as a whole: every row, both files."""

import json

import pytest
import torch

from catnet.bench.memory import LIBRARY, TRAINING, peak_memory
from catnet.bench.rows import ROWS
from catnet.cli import main

FAST = [name for name in ROWS if name != "memory"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "new"
    main(["bench", "--quick", "-o", str(folder), "--rows", *FAST, "operations"])
    return folder


def test_every_row_has_all_its_samples(written):
    content = json.loads((written / "bench.json").read_text())
    rows = {row["name"]: row for row in content["rows"]}
    assert len(rows) == len(content["rows"]) == 16
    for row in rows.values():
        samples = row["samples"]
        assert len(samples["plain"]) == len(samples["library"]) >= 2
        assert min(samples["plain"] + samples["library"]) > 0
        assert row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    whole = rows["training, float32, batch 1: whole episode"]["samples"]["library"][0]
    parts = [
        r["samples"]["library"][0]
        for name, r in rows.items()
        if name.startswith("training, float32, batch 1: ") and "whole" not in name
    ]
    assert len(parts) == 4
    assert sum(parts) == pytest.approx(whole)


def test_the_machine_and_the_operations_are_told(written):
    content = json.loads((written / "bench.json").read_text())
    assert content["machine"]["torch"] == torch.__version__
    assert content["machine"]["cores"] >= 1
    assert content["size"] == "quick"
    counted = content["speed"]["operations"]
    for side in counted.values():  # two products backward for one forward
        assert 1.5 < side["backward"] / side["forward"] < 2.5
    for reached in content["speed"]["reached"]:
        assert 0 < reached["fraction"] < 1


def test_markdown_holds_every_row(written):
    text = (written / "bench.md").read_text()
    content = json.loads((written / "bench.json").read_text())
    for row in content["rows"]:
        assert f"| {row['name']} | " in text
    assert "GFLOP" in text
    assert content["machine"]["commit"] in text


def test_memory_is_that_of_a_process_of_its_own(scene):
    ballast = torch.ones(2**30 // 4)  # a GiB that the measured process does not hold
    assert 100 < peak_memory(LIBRARY, TRAINING, scene) < 1000
    assert len(ballast) > 0


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--rows", "trainig"], "did you mean 'training'"),
        (["--rows", "xyz"], "known are sampling"),
        pytest.param(
            ["--device", "cuda"],
            "sees no GPU",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_mistakes_are_one_sentence(given, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "--quick", *given])
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
