"""The quick form of `catnet bench` as a whole: every row, both files, and how it ends early."""

import errno
import json
import os
import pickle
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from trials import complaint, end_of, raising

from catnet.bench.memory import LIBRARY, TRAINING, peak_memory
from catnet.bench.rows import ROWS
from catnet.cli import main
from catnet.errors import WriteError

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


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """`bare(work)`: bench on a scene without cases, with one row that does this; its words."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("catnet.bench.stage.furnish", lambda scene: None)

    def given(work):
        monkeypatch.setattr("catnet.commands.bench.ROWS", {"row": work})
        return ["bench", "--quick", "--rows", "row"]

    return given


def test_a_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "notes").touch()
    sentence = complaint(["bench", "--quick", "-o", tmp_path / "notes"], capsys)
    assert f"{tmp_path / 'notes'} is a file; give the name of a folder" in sentence


def test_told_to_end_it_takes_its_folder_away(bare, tmp_path, capsys):
    def end(scene):
        assert [scene.home] == [*tmp_path.iterdir()]
        os.kill(os.getpid(), signal.SIGTERM)

    kept = []
    children = signal.getsignal(signal.SIGCHLD)  # a process that ends no longer minds them
    before = signal.signal(signal.SIGTERM, lambda number, _: kept.append(number))
    try:
        assert end_of(bare(end), capsys)[0] == 128 + signal.SIGTERM
        assert not [*tmp_path.iterdir()]
        os.kill(os.getpid(), signal.SIGTERM)
        assert kept == [signal.SIGTERM]  # whoever had it has it again
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGCHLD, children)


def test_stopped_it_does_not_promise_to_go_on(bare, tmp_path, capsys):
    status, _, err = end_of(bare(raising(KeyboardInterrupt)), capsys)
    assert status == 130
    assert err.endswith("stopped; what was measured is lost, and the same command begins anew\n")
    assert not [*tmp_path.iterdir()]


def test_what_a_killed_one_left_is_removed(bare, tmp_path, capsys):
    kept = [f"catnet-bench-abc-{os.getppid()}", "catnet-bench-notes", "other-999999999"]
    for name in ["catnet-bench-abc-999999999", *kept]:
        (tmp_path / name / "raw").mkdir(parents=True)
    homes = []

    def look(scene):
        homes.append(scene.home.name)
        return []

    assert end_of(bare(look), capsys)[0] == 0
    assert homes[0].startswith("catnet-bench-")
    assert homes[0].endswith(f"-{os.getpid()}")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("name", ["bench.json", "bench.md", "opening.svg", "drawing.svg"])
def test_a_place_that_is_taken_is_told_before_anything_is_measured(name, bare, tmp_path, capsys):
    words = bare(raising(AssertionError))
    (tmp_path / "out" / name).mkdir(parents=True)
    said = complaint([*words, "--curves", "cases", "-o", tmp_path / "out"], capsys)
    assert said == f"{tmp_path / 'out' / name} is a folder; give the name of a file"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("error", [FULL, WriteError(Path("x"), FULL)])
def test_a_full_disk_for_its_own_data_is_told_as_such(error, bare, monkeypatch, capsys):
    words = bare(raising(AssertionError))
    monkeypatch.setattr("catnet.bench.stage.furnish", raising(error))
    said = complaint(words, capsys)
    assert said.endswith(
        ": cannot be written (No space left on device); free space on its disk, or choose a folder "
        "that you may write to (TMPDIR)"
    )


def test_a_full_disk_is_told_by_another_process():
    error = WriteError(Path("x"), FULL, homes="TMPDIR")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert "TMPDIR" in str(error)
