import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from catnet.checkpoint import checksum, load_checkpoint, save_checkpoint
from catnet.errors import UserError
from catnet.journal import forget_after


class Small(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(3, width)
        self.norm = nn.BatchNorm1d(width)
        self.idle = nn.Parameter(torch.zeros(2))  # no gradient, so the optimizer knows nothing

    def step(self, optimizer):
        optimizer.zero_grad()
        self.norm(self.linear(torch.arange(12.0).reshape(4, 3).sin())).square().sum().backward()
        optimizer.step()


def small(optimizer, *, width=4, steps=0):
    torch.manual_seed(steps)
    model = Small(width)
    kinds = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        "plain": lambda p: torch.optim.SGD(p, lr=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1),
    }
    built = kinds[optimizer](model.parameters())
    for _ in range(steps):
        model.step(built)
    return model, built


@pytest.mark.parametrize("optimizer", ["sgd", "plain", "adamw"])
def test_a_checkpoint_holds_all_there_is(optimizer, tmp_path):
    model, built = small(optimizer, steps=2)
    save_checkpoint(tmp_path, model, built, step=2, run="me")
    copy, rebuilt = small(optimizer)
    assert load_checkpoint(tmp_path / "step-00000002.safetensors", copy, rebuilt, run="me") == 2
    for _ in range(2):
        model.step(built)
        copy.step(rebuilt)
    for one, other in zip(model.state_dict().values(), copy.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_checkpoint_of_another_architecture_changes_nothing(tmp_path):
    model, built = small("sgd", steps=2)
    save_checkpoint(tmp_path, model, built, step=2, run="me")
    path = tmp_path / "step-00000002.safetensors"
    other, rebuilt = small("sgd", width=5, steps=1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(UserError, match=r"checkpoint of another architecture \(linear.weight\)"):
        load_checkpoint(path, other, rebuilt, run="me")
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def change(path, *, tensors=(), without=(), **facts):
    """Write a checkpoint anew with something else in it."""
    with safe_open(path, framework="pt") as file:
        known = file.metadata()
    kept = {name: value for name, value in load_file(path).items() if name not in without}
    told = {name: value for name, value in {**known, **facts}.items() if value is not None}
    save_file(kept | dict(tensors), path, metadata=told)


CHANGES = {
    "another step": {"step": "2000"},
    "no optimizer at all": {"without": [f"optimizer/{n}/momentum_buffer" for n in range(4)]},
    "no optimizer for a parameter": {"without": ["optimizer/1/momentum_buffer"]},
    "optimizer of another parameter": {"tensors": {"optimizer/4/momentum_buffer": torch.ones(2)}},
    "another weight": {"tensors": {"model/linear.bias": torch.zeros(4)}},
    "another type": {"tensors": {"model/linear.bias": torch.zeros(4, dtype=torch.float64)}},
    "a tensor more": {"tensors": {"model/more": torch.zeros(1)}},
    "no checksum": {"checksum": None},
    "no run": {"run": None},
    "no step": {"step": None},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_checkpoint_that_was_changed_is_refused_and_changes_nothing(what, tmp_path):
    model, built = small("sgd", steps=2)
    save_checkpoint(tmp_path, model, built, step=2, run="me")
    path = tmp_path / "step-00000002.safetensors"
    change(path, **CHANGES[what])
    step = CHANGES[what].get("step")
    path = path.rename(tmp_path / f"step-{step:0>8}.safetensors") if step else path
    copy, rebuilt = small("sgd", steps=1)
    before = {name: value.clone() for name, value in copy.state_dict().items()}
    with pytest.raises(UserError, match=rf"^{path}: .*; delete it$"):
        load_checkpoint(path, copy, rebuilt, run="me")
    assert all(torch.equal(before[name], value) for name, value in copy.state_dict().items())


FORGED = {
    "a field of another optimizer": {"optimizer/0/exp_avg": torch.zeros(4, 3)},
    "a parameter too many": {"optimizer/99/momentum_buffer": torch.zeros(4, 3)},
    "no parameter": {"optimizer/zero/momentum_buffer": torch.zeros(4, 3)},
    "another shape": {"optimizer/0/momentum_buffer": torch.zeros(3)},
}


@pytest.mark.parametrize("what", FORGED)
def test_a_whole_file_with_state_that_does_not_fit_changes_nothing(what, tmp_path):
    model, built = small("sgd", steps=2)
    save_checkpoint(tmp_path, model, built, step=2, run="me")
    path = tmp_path / "step-00000002.safetensors"
    tensors = load_file(path) | FORGED[what]
    facts = {"step": "2", "run": "me"}
    save_file(tensors, path, metadata={**facts, "checksum": checksum(tensors, facts)})
    unchanged_by(path, *small("sgd", steps=1))


def test_a_checkpoint_of_another_optimizer_changes_nothing(tmp_path):
    for kind, other in (("sgd", "adamw"), ("adamw", "sgd")):
        model, built = small(kind, steps=2)
        save_checkpoint(tmp_path, model, built, step=2, run="me")
        unchanged_by(tmp_path / "step-00000002.safetensors", *small(other, steps=1))


def unchanged_by(path, model, optimizer):
    """A checkpoint is refused for its optimizer's state, before anything of it is taken."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(UserError, match=rf"^{path}: checkpoint of another optimizer \(.*; delete"):
        load_checkpoint(path, model, optimizer, run="me")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_bit_that_turned_is_noticed_wherever_it_is(tmp_path):
    model, built = small("sgd", steps=2)
    save_checkpoint(tmp_path, model, built, step=2, run="me")
    path = tmp_path / "step-00000002.safetensors"
    content = path.read_bytes()
    chosen = random.Random(0)
    ways = [("cut", chosen.randrange(len(content))) for _ in range(60)]
    ways += [("cut", place) for place in (0, 1, 7, 8, 9, len(content) - 1)]
    ways += [("turn", chosen.randrange(len(content))) for _ in range(250)]
    ways += [("noise", size) for size in (0, 5, 8, 64, 100_000)]
    for how, where in ways:
        damaged = bytearray(content)
        if how == "turn":
            damaged[where] ^= 1 << chosen.randrange(8)
        path.write_bytes(
            {"cut": content[:where], "turn": damaged, "noise": chosen.randbytes(where)}[how]
        )
        with pytest.raises(UserError, match=rf"^{path}: "):
            load_checkpoint(path, *small("sgd"), run="me")
    path.write_bytes(content)
    assert load_checkpoint(path, *small("sgd"), run="me") == 2


def test_two_checkpoints_are_kept_and_a_kill_leaves_no_rubbish(tmp_path):
    model, built = small("sgd", steps=1)
    (tmp_path / ".123-step-00000001.safetensors").write_bytes(b"cut off")
    for step in (2, 10, 9999, 123456):
        save_checkpoint(tmp_path, model, built, step=step, run="me")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00009999.safetensors",
        "step-00123456.safetensors",
    ]


def test_a_log_forgets_later_steps_and_a_line_that_was_cut_off(tmp_path):
    log = tmp_path / "log.jsonl"
    lines = [json.dumps({"step": step, "loss": 0.1 * step}) + "\n" for step in (2, 4, 6)]
    log.write_text("".join(lines) + '{"step": 8, "lo')
    forget_after(log, 6)
    assert log.read_text() == "".join(lines)
    forget_after(log, 5)
    assert log.read_text() == "".join(lines[:2])
    forget_after(log, 0)
    assert log.read_text() == ""
    forget_after(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()


def test_a_checkpoint_of_another_name_is_refused(tmp_path):
    """Its step decides which episodes come next."""
    model, built = small("sgd", steps=1)
    save_checkpoint(tmp_path, model, built, step=3, run="me")
    path = tmp_path / "step-00000003.safetensors"
    other = path.rename(tmp_path / "step-00000007.safetensors")
    with pytest.raises(UserError, match="holds step 3 by another name; delete it"):
        load_checkpoint(other, model, built, run="me")
