"""A step that is no number ends the run, and can be looked at."""

import re
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from trials import complaint, end_of, log_of, raising, run, silent

from catnet.checkpoint import checkpoints
from catnet.doctor.runs import runs
from catnet.engine import Engine
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.guard import Guard
from catnet.loading import training_batch
from catnet.model.ops import enlarge
from catnet.replay import read_step, replay
from catnet.snapshot import Snapshot, load_snapshot, save_snapshot, snapshot_path
from catnet.train import build_objective, open_training

WILD = ("train.rate=1e30", "train.steps=9")


def fail(folder):
    """The sentence that a run ends with."""
    with pytest.raises(UserError) as ended:
        run(folder)
    assert not folder.trained
    return str(ended.value)


def values_of(out):
    return dict(re.findall(r"^  (loss|segmentation|alignment|gradient norm) +(\S+)", out, re.M))


@pytest.mark.parametrize("every", [1, 100])
def test_a_run_ends_before_a_bad_step_is_saved(every, tiny, capsys):
    folder = tiny(*WILD, f"machine.log_every={every}", "machine.checkpoint_every=1")
    said = fail(folder)
    (line,) = (line for line in runs() if line.subject == f"run {folder.path.name}")
    assert f"catnet replay {snapshot_path(folder.replay, 2)}" in line.remedy
    path = snapshot_path(folder.replay, 2)
    assert said.startswith(f"{folder.path}: the loss of step 2 is nan; lower train.rate, then")
    assert said.endswith(f"`catnet replay {path}` shows the step")
    (saved,) = checkpoints(folder.checkpoints)
    assert saved.name == "step-00000001.safetensors"
    assert all(value.isfinite().all() for value in load_file(saved).values())
    status, out, err = end_of(["replay", path], capsys)
    assert (status, err) == (0, "")
    assert out.startswith("tiny: step 2 of 9, seed 0, float32; weights before the step\n")
    assert values_of(out)["loss"] == "nan"
    assert "first no number   the output of model.encoder." in out
    assert out.endswith(f"picture: {path.with_suffix('.png')}\n")
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert fail(folder) == said  # nothing has come of going on from the checkpoint


def test_half_precision_may_be_the_reason(tiny):
    assert "lower train.rate or use train.precision=float32, then" in fail(
        tiny(*WILD, "train.precision=bfloat16")
    )


def test_on_a_gpu_it_is_noticed_before_anything_is_saved(tiny, monkeypatch, capsys):
    begin = Guard.__init__

    def begin_on_gpu(self, *given, **named):
        begin(self, *given, **named)
        self.eager = False

    folder = tiny(*WILD, "machine.log_every=100", "machine.checkpoint_every=4")
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "__init__", begin_on_gpu)
        said = fail(folder)
    assert "the loss of step 2 is nan" in said
    assert not checkpoints(folder.checkpoints)
    path = snapshot_path(folder.replay, 2)
    assert load_snapshot(path).weights is None  # they were overwritten before it was noticed
    late = end_of(["replay", path], capsys)
    prompt = snapshot_path(folder.path.parent / "prompt" / "replay", 2)
    monkeypatch.setattr("catnet.guard.snapshot_path", lambda folder, step: prompt)
    fail(folder)
    assert load_snapshot(prompt).weights is not None
    status, out, err = end_of(["replay", prompt], capsys)
    assert (status, out.splitlines()[:-1], err) == (0, late[1].splitlines()[:-1], "")


def test_what_is_replayed_is_what_was_trained(tiny, capsys):
    folder = run(tiny("train.steps=8", "data.shots=2"))
    for step in (1, 4, 6, 8):
        status, out, _ = end_of(["replay", folder.path, "--step", step, "--exact"], capsys)
        assert status == 0
        line = log_of(folder)[step - 1]
        for name in ("loss", "segmentation", "alignment"):
            assert float(values_of(out)[name]) == pytest.approx(line[name], rel=2e-6)
        assert "first no number   nowhere: all of it is finite" in out
        start = {1: "initial", 4: "after step 3", 6: "after step 5", 8: "after step 7"}[step]
        assert f"; weights {start}, as they were then\n" in out
        assert (folder.path / "replay" / f"step-{step:0>8}.png").is_file()


def test_without_exact_the_nearest_weights_will_do(tiny, capsys):
    folder = run(tiny("train.steps=8"))
    for step, start in ((2, "initial"), (5, "after step 3"), (8, "after step 6")):
        _, out, _ = end_of(["replay", folder.path, "--step", step], capsys)
        assert f"; weights {start}\n" in out
    _, source = open_training(folder)
    engine = Engine(torch.device("cpu"), 0, 1, mixed=False)
    episode = training_batch(source, folder.run, engine=engine, step=7)
    for k in range(2):
        count, low, high = (
            f(episode.query_mask[k] if f is torch.sum else episode.query[k]).item()
            for f in (torch.sum, torch.min, torch.max)
        )
        assert f"episode {k} query   {count:.0f} pixels, intensities {low:.6g} to {high:.6g}" in out


def test_control_c_while_a_replay_trains(tiny, capsys, monkeypatch):
    folder = tiny()
    before = sorted(folder.path.rglob("*"))
    monkeypatch.setattr("catnet.replay.set_rate", raising(KeyboardInterrupt()))
    status, out, err = end_of(["replay", folder.path, "--step", "3", "--exact"], capsys)
    assert (status, out) == (130, "")
    assert err == "catnet: stopped; nothing was written, and the same command begins anew\n"
    assert sorted(folder.path.rglob("*")) == before


@pytest.fixture
def snapshot(tiny):
    folder = tiny()
    _, source = open_training(folder)
    engine = Engine(torch.device("cpu"), 0, 1, mixed=False)
    episode = training_batch(source, folder.run, engine=engine, step=0)
    return Snapshot(folder.run, 1, episode, build_objective(folder.run).state_dict())


def test_a_snapshot_is_read_as_it_was_written(snapshot, tmp_path):
    path = tmp_path / "new" / "step.safetensors"
    save_snapshot(path, snapshot)
    again = load_snapshot(path)
    assert (again.run, again.step) == (snapshot.run, 1)
    assert torch.equal(again.episode.support, snapshot.episode.support)
    assert torch.equal(again.episode.query_mask, snapshot.episode.query_mask)
    assert again.weights.keys() == snapshot.weights.keys()
    assert replay(again, source=path).losses.total == replay(snapshot, source=path).losses.total
    save_snapshot(path, replace(snapshot, weights=None))
    assert load_snapshot(path).weights is None


def changed(snapshot, name, value):
    weights = {key: x.clone() for key, x in snapshot.weights.items()}
    weights[name].view(-1)[0] = value
    return replace(snapshot, weights=weights)


def test_the_first_wrong_number_is_named(snapshot, tmp_path):
    replayed = partial(replay, source=tmp_path)
    assert replayed(snapshot).culprit is None
    name = next(key for key in snapshot.weights if key.endswith("classify.2.bias"))
    assert replayed(changed(snapshot, name, float("nan"))).culprit == f"the weight {name}"
    found = replayed(changed(snapshot, name, 3e38))  # finite, and its cross entropy too large
    assert found.culprit.startswith(("the output of", "the gradient of"))
    image = snapshot.episode.query.clone()
    image[0, 0, 0, 0] = float("inf")
    bad = replace(snapshot, episode=replace(snapshot.episode, query=image))
    assert replayed(bad).culprit == "the episode itself"


def test_a_gradient_that_is_no_number_ends_the_run(tiny, monkeypatch):
    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("inf")

    def steep(logits, *, size):
        return Steep.apply(enlarge(logits, size=size))

    monkeypatch.setattr("catnet.model.loss.enlarge", steep)
    said = fail(tiny("machine.checkpoint_every=1"))
    assert "the gradient of step 1 is nan; lower" in said


MISTAKES = {
    "no file": ("replay {home}/none.safetensors", "no such file; check the path"),
    "no run": ("replay {home}", "not the folder of a run"),
    "no step": ("replay {run}", "which step"),
    "step 0": ("replay {run} --step 0", "has the steps 1 to 2, and no 0"),
    "a step too far": ("replay {run} --step 3", "has the steps 1 to 2, and no 3"),
    "weights": ("replay {run}/model/model.safetensors", "holds no step of a run"),
    "no safetensors": ("replay {run}/run.yml", "holds no step of a run"),
    "a step of a step": ("replay {run}/run.yml --step 1", "--step and --exact belong to a run"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake, places, capsys):
    command, hint = MISTAKES[mistake]
    assert hint in complaint(places(command).split(), capsys)


def test_a_snapshot_of_other_weights_is_refused(snapshot, tmp_path, capsys):
    path = tmp_path / "step.safetensors"
    weights = dict(list(snapshot.weights.items())[1:])
    save_snapshot(path, replace(snapshot, weights=weights))
    said = complaint(["replay", path], capsys)
    assert said.startswith(f"{path}: step 1 has weights of another architecture (")
    assert said.endswith(
        "; replay it with the version of catnet that wrote it, or train the run again"
    )
    save_file({"episode/support": snapshot.episode.support}, path)
    assert "holds no step of a run" in complaint(["replay", path], capsys)


def damaged(snapshot, path, *, step="1", run=None, **changes):
    """A snapshot whose tensors, in `changes` by their fields, and facts are no longer its own."""
    tensors = {field.name: getattr(snapshot.episode, field.name) for field in fields(Episode)}
    tensors = {name: changes.get(name, lambda x: x)(x) for name, x in tensors.items()}
    weights = {f"weights/{name}": value for name, value in snapshot.weights.items()}
    episode = {f"episode/{name}": value.contiguous() for name, value in tensors.items()}
    facts = {"step": step, "run": run or snapshot.run.model_dump_json()}
    save_file(weights | episode, path, metadata=facts)
    return path


def every(change):
    return {field.name: change for field in fields(Episode)}


def repainted(mask):
    mask = mask.clone()
    mask[0, 0] = 0.5
    return mask


DAMAGES = {
    "smaller mask": (
        {"support_mask": lambda x: x[..., ::2, ::2]},
        "support_mask is 2 x 1 x 32 x 32, not 2 x 1 x 64 x 64",
    ),
    "support of rank 4": ({"support": lambda x: x[:, 0]}, "support has 4 axes, not the 5 of b s"),
    "a query too few": ({"query": lambda x: x[:1]}, "query is 1 x 1 x 64 x 64, not 2 x 1 x 64"),
    "flat answer": ({"query_mask": lambda x: x.sum()}, "query_mask is one number, not 2 x 64 x 64"),
    "no episode": (every(lambda x: x[:0]), "support is 0 x 1 x 1 x 64 x 64, and so holds nothing"),
    "no shot": (
        {"support": lambda x: x[:, :0], "support_mask": lambda x: x[:, :0]},
        "support is 2 x 0 x 1 x 64 x 64, and so holds nothing",
    ),
    "colors": (
        {"support": lambda x: x.repeat(1, 1, 3, 1, 1), "query": lambda x: x.repeat(1, 3, 1, 1)},
        "support is 2 x 1 x 3 x 64 x 64, not 2 x 1 x 1 x 64 x 64",
    ),
    "odd sides": (every(lambda x: x[..., :60, :50]), "the slices are 60 x 50, and no multiples"),
    "int64": (every(torch.Tensor.long), "support is int64, not float32"),
    "float16": ({"query": torch.Tensor.half}, "query is float16, not float32"),
    "float64": (every(torch.Tensor.double), "support is float64, not float32"),
    "bool mask": ({"query_mask": torch.Tensor.bool}, "query_mask is bool, not float32"),
    "gray mask": ({"query_mask": repainted}, "query_mask holds other values than 0 and 1"),
    "gray support": ({"support_mask": repainted}, "support_mask holds other values than 0 and 1"),
    "step 0": ({"step": "0"}, "its run has the steps 1 to 6, and no 0"),
    "step -5": ({"step": "-5"}, "its run has the steps 1 to 6, and no -5"),
    "a step too far": ({"step": "7"}, "its run has the steps 1 to 6, and no 7"),
    "many nines": ({"step": "9" * 30}, f"its run has the steps 1 to 6, and no {'9' * 30}"),
    "run of another kind": ({"run": '{"trian": {}}'}, "run: trian is not a setting; did you mean"),
    "no settings": ({"run": "[]"}, "run: input should be a valid dictionary"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_that_is_none_is_refused(damage, snapshot, tmp_path, capsys):
    changes, hint = DAMAGES[damage]
    path = damaged(snapshot, tmp_path / "step.safetensors", **changes)
    said = complaint(["replay", path], capsys)
    assert said.startswith(f"{path}: is no snapshot of a step ({hint}")
    assert said.endswith("); train the run again to make another")


def test_pixels_that_are_no_numbers_are_what_a_snapshot_is_for(snapshot, tmp_path):
    path = damaged(snapshot, tmp_path / "step.safetensors", query=lambda x: x * float("nan"))
    assert replay(load_snapshot(path), source=path).culprit == "the episode itself"


@pytest.mark.parametrize("name", ["step.safetensors", "deep/er/step.safetensors"])
def test_without_weights_a_snapshot_lies_in_its_run(name, snapshot, tmp_path, capsys):
    path = tmp_path / name
    save_snapshot(path, replace(snapshot, weights=None))
    said = complaint(["replay", path], capsys)
    assert said.startswith(f"{path}: holds no weights, and does not lie in the folder replay of")


def test_without_weights_a_snapshot_lies_not_at_the_root(snapshot, monkeypatch):
    monkeypatch.setattr("catnet.replay.load_snapshot", lambda path: replace(snapshot, weights=None))
    with pytest.raises(UserError, match="holds no weights"):
        read_step(Path("/step.safetensors"), report=silent)
