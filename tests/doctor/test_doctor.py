"""`catnet doctor`: every planted problem is one line with what to do, and never a traceback."""

import json
import shutil
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import numpy as np
import pytest
from filelock import FileLock
from packaging.requirements import Requirement
from trials import end_of, killed

from catnet.doctor import data, machine, packages, runs
from catnet.doctor.line import Line, ask

Usage = namedtuple("Usage", "total used free")
GB = 10**9


@pytest.fixture
def home(tiny_home, tiny, tmp_path, monkeypatch):
    """The tiny data, the test's own, and no run."""
    shutil.copytree(tiny_home / "data", tmp_path / "data-home")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data-home"))
    return tmp_path / "data-home"


def line_of(lines, subject, state):
    """The one line about a subject in a state."""
    found = [line for line in lines if (line.subject, line.state) == (subject, state)]
    assert len(found) == 1, lines
    assert state == "ok" or found[0].remedy
    return found[0]


def test_a_healthy_place_has_no_problem(home, trained, capsys):
    trained()
    status, out, err = end_of(["doctor"], capsys)
    assert (status, err) == (0, "")
    for subject in ("python", "cores", "memory", "CATNET_DATA", "packages", "torchvision", "cards"):
        assert f"OK       {subject}: " in out
    assert "OK       data tiny: 6 cases are ready, 6 with supervoxels" in out
    assert "OK       runs: 1 of 1 in" in out
    assert out.endswith("\n0 problems\n")


def test_json_says_the_same(home, capsys):
    (home / "tiny" / "2" / "label.npy").write_bytes(b"")
    status, out, _ = end_of(["doctor", "--json"], capsys)
    found = json.loads(out)
    assert (status, found["problems"]) == (1, 1)
    assert set(found["lines"][0]) == {"subject", "state", "what", "remedy"}
    (problem,) = [line for line in found["lines"] if line["state"] == "problem"]
    assert problem["subject"] == "data tiny"
    assert problem["what"] == "damaged: 2 of 6 cases"
    assert problem["remedy"] == "delete them, and catnet prepare tiny --raw DIR"


def test_a_probe_that_fails_is_a_line(monkeypatch, capsys):
    def broken():
        yield Line("memory", "ok", "before")
        raise RuntimeError("the sensor\nis gone")

    monkeypatch.setattr(machine, "memory", broken)
    status, out, err = end_of(["doctor"], capsys)
    assert (status, err) == (1, "")
    assert "PROBLEM  memory: could not be looked at: RuntimeError: the sensor is gone -> " in out
    assert "OK       cards: " in out, "the others are asked all the same"


def test_a_torch_that_cannot_be_imported_is_a_line(monkeypatch):
    def refuse(name):
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr(packages.importlib, "import_module", refuse)
    assert "libcudart" in line_of(ask("torch", packages.torch_build), "torch", "problem").what


def test_an_old_python(monkeypatch):
    monkeypatch.setattr(machine, "OLDEST", (99, 0))
    line_of(machine.python(), "python", "problem")


@pytest.mark.parametrize(("size", "state"), [(1.5, "problem"), (4, "note"), (64, "ok")])
def test_memory(size, state, monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    limit.write_text(f"{int(size * GB)}\n")
    monkeypatch.setattr(machine, "LIMITS", (str(limit), str(tmp_path / "none")))
    monkeypatch.setattr(machine.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1}.get(name, 99 * GB))
    assert f"{size:.1f} GB" in line_of(machine.memory(), "memory", state).what


@pytest.mark.parametrize(("free", "state"), [(0.2, "problem"), (5, "note"), (50, "ok")])
def test_disks(free, state, monkeypatch):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: Usage(0, 0, int(free * GB)))
    lines = list(machine.disks())
    assert "free" in line_of(lines, "CATNET_DATA", state).what
    line_of(lines, "CATNET_RUNS", state)


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.setattr(machine.os, "access", lambda path, mode: False)
    assert "cannot be written" in line_of(machine.disks(), "CATNET_RUNS", "problem").what
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "file" / "data"))
    assert "is a file" in line_of(machine.disks(), "CATNET_DATA", "problem").what


def test_packages_outside_of_their_range(monkeypatch):
    asked = [Requirement(text) for text in ("numpy>=99", "pandas>=2", "no-such-thing>=1")]
    monkeypatch.setattr(packages, "requirements", lambda: asked)
    lines = list(packages.packages())
    assert line_of(lines, "packages", "ok").what == "1 of 3 as required"
    assert line_of(lines, "numpy", "problem").what == f"{np.__version__} is here, >=99 is required"
    assert "is missing" in line_of(lines, "no-such-thing", "problem").what


def test_the_ranges_are_those_of_the_project(monkeypatch, tmp_path):
    names = {one.name for one in packages.requirements()}
    assert {"torch", "numpy", "monai"} <= names
    assert "beartype" not in names, "extras are optional"
    monkeypatch.setattr(packages, "PROJECT", tmp_path / "none.toml")
    installed = {one.name for one in packages.requirements()}
    assert {"torch", "numpy"} <= installed
    assert "beartype" not in installed


def test_an_optional_package_that_is_not_there(monkeypatch):
    def missing(name):
        if name == "ray":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(packages, "version", missing)
    lines = list(packages.optional_packages())
    assert "needed for sweeps" in line_of(lines, "ray", "note").what
    assert "playwright 1.0" in line_of(lines, "optional", "ok").what


def test_torchvision_of_another_torch(monkeypatch):
    monkeypatch.setattr(packages, "requires", lambda name: ["numpy", "torch (==1.2.3)"])
    said = line_of(packages.torch_build(), "torchvision", "problem")
    assert "was built for torch ==1.2.3" in said.what


def fake_torch(*, cuda, devices=(), built=("sm_90", "compute_90")):
    """A torch with these devices: (name, major, minor)."""
    listed = [SimpleNamespace(name=n, major=a, minor=b) for n, a, b in devices]
    found = SimpleNamespace(
        is_available=lambda: bool(devices),
        device_count=lambda: len(devices),
        get_device_properties=listed.__getitem__,
        mem_get_info=lambda number: (10 * GB, 80 * GB),
        get_arch_list=lambda: list(built),
    )
    return SimpleNamespace(version=SimpleNamespace(cuda=cuda), cuda=found)


@pytest.mark.parametrize(
    ("torch", "smi", "subject", "state", "says"),
    [
        (fake_torch(cuda=None), None, "devices", "note", "no GPU"),
        (fake_torch(cuda=None), "/bin/nvidia-smi", "devices", "note", "torch is CPU only"),
        (fake_torch(cuda="13.0"), "/bin/nvidia-smi", "devices", "problem", "torch sees no GPU"),
        (
            fake_torch(cuda="13.0", devices=[("Big", 9, 0)]),
            "/bin/nvidia-smi",
            "cuda:0",
            "ok",
            "Big, 10.0 GB of 80.0 GB free",
        ),
        (
            fake_torch(cuda="13.0", devices=[("Old", 5, 2)]),
            "/bin/nvidia-smi",
            "cuda:0",
            "problem",
            "no code for sm_52",
        ),
    ],
)
def test_devices(torch, smi, subject, state, says, monkeypatch):
    monkeypatch.setattr(packages.importlib, "import_module", lambda name: torch)
    monkeypatch.setattr(packages.shutil, "which", lambda name: smi)
    assert says in line_of(packages.devices(), subject, state).what


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (["sm_80"], (8, 6), True),
        (["sm_86"], (8, 0), False),
        (["sm_80"], (9, 0), False),
        (["sm_80", "compute_80"], (9, 0), True),
        (["sm_90a", "sm_120"], (12, 0), True),
        (["sm_90"], (12, 0), False),
    ],
)
def test_which_code_runs_where(built, capability, runs):
    major, minor = capability
    assert packages.runs_on(built, major=major, minor=minor) == runs


def test_cards_that_do_not_load(tmp_path, monkeypatch):
    monkeypatch.setenv("CATNET_CARDS", str(tmp_path))
    line_of(data.cards(), "cards", "note")
    (tmp_path / "bad.yml").write_text("name: bad\nmodality: PET\n")
    (tmp_path / "worse.yml").write_text("[")
    lines = list(data.cards())
    assert "bad.yml" in line_of(lines, "card bad", "problem").what
    line_of(lines, "card worse", "problem")
    assert "0 of 2" in line_of(lines, "cards", "ok").what


def change_meta(case, **changes):
    path = case / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_prepared_data_that_is_not_as_it_should_be(home):
    tiny = home / "tiny"
    change_meta(tiny / "1", preparation="0123")
    change_meta(tiny / "2", shape=[3, 3, 3])
    (tiny / "3" / "meta.json").write_text("{")
    (tiny / "4" / "supervoxels.json").unlink()
    (tiny / ".5-123").mkdir()
    shutil.copytree(tiny / "6", home / "stranger" / "6")
    lines = list(data.prepared())
    problems = [line for line in lines if line.state == "problem"]
    assert {line.what.partition(",")[0] for line in problems[1:]} == {"stale: 1 of 6 cases"}
    assert sorted(problems[0].what[9:13].split(", ")) == ["2", "3"]
    assert line_of(lines, "data tiny", "ok").what == "3 cases are ready, 2 with supervoxels"
    notes = " ".join(line.what for line in lines if line.state == "note")
    assert "1 of 3 cases have no supervoxels" in notes
    assert "1 unfinished folders" in notes
    stranger = line_of(lines, "data stranger", "note")
    assert "has this name" in stranger.what
    assert "delete" not in stranger.remedy, "its card may lie elsewhere"


def test_fewer_cases_than_the_folds_need(home):
    for case in ("5", "6"):
        shutil.rmtree(home / "tiny" / case)
    said = line_of(data.prepared(), "data tiny", "note").what
    assert said == (
        "the folds of card tiny need 6 cases, and 4 cases are there: 1 of its 2 folds can be used"
    )


def test_no_data_and_no_runs_are_notes():
    line_of(data.prepared(), "data", "note")
    line_of(runs.runs(), "runs", "note")


def test_runs_that_are_not_whole(trained, tiny, tmp_path):
    whole = trained().path
    begun = tiny("train.steps=7").path
    (begun / "log.jsonl").write_text('{"step": 3}\n{"step": 4}\n')
    (whole.parent / "lost" / "checkpoints").mkdir(parents=True)
    (whole.parent / "sweeps" / "x").mkdir(parents=True)
    (whole.parent / "pictures").mkdir()
    damaged = whole.parent / "damaged"
    shutil.copytree(whole, damaged)
    (damaged / "run.yml").write_text("model: {rounds: many}\n")
    lines = list(runs.runs())
    assert "1 of 4" in line_of(lines, "runs", "ok").what
    unfinished = line_of(lines, f"run {begun.name}", "note")
    assert "step 4 of 7, without a checkpoint" in unfinished.what
    assert unfinished.remedy == "`catnet train` with the same file and settings begins anew"
    assert "has no run.yml" in line_of(lines, "run lost", "problem").what
    assert "run.yml" in line_of(lines, "run damaged", "problem").what
    assert len(lines) == 4


def test_a_run_with_a_checkpoint_goes_on_from_it(tiny):
    folder = killed(tiny("train.steps=7"), stop=5)
    line = line_of(runs.runs(), f"run {folder.path.name}", "note")
    assert line.what == "unfinished, logged up to step 5 of 7"
    assert line.remedy == (
        "`catnet train` with the same file and settings goes on from the last checkpoint"
    )


def test_a_run_without_its_data_is_orphaned(home, trained):
    path = trained().path
    shutil.rmtree(home / "tiny" / "3")
    line = line_of(runs.runs(), f"run {path.name}", "problem")
    assert "orphaned" in line.what
    assert "have changed since this run was trained" in line.remedy
    shutil.rmtree(home / "tiny")
    assert "no prepared case" in line_of(runs.runs(), f"run {path.name}", "problem").remedy


def test_a_run_that_is_being_trained_is_no_concern(home, tiny):
    path = tiny("train.steps=7").path
    lock = FileLock(path / ".lock", is_singleton=False)
    with lock:
        assert next(iter(runs.runs())).what.startswith("1 of 1")
    line_of(runs.runs(), f"run {path.name}", "note")


def test_nothing_is_changed(home, trained, capsys):
    folder = trained().path

    def state():
        files = [*home.rglob("*"), *folder.parent.rglob("*")]
        return {path: path.stat().st_mtime_ns for path in files if path.name != ".lock"}

    before = state()
    end_of(["doctor"], capsys)
    assert state() == before
