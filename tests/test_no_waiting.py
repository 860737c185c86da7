"""A training step asks a GPU for no number, so that the host is always ahead of it.

The meta device stands in for the GPU: it computes shapes alone, and refuses whoever asks it for a
number. What is made from Python's numbers on a GPU would wait as well, and is refused here.
"""

from contextlib import nullcontext

import pytest
import torch

from catnet.engine import Engine
from catnet.guard import Guard
from catnet.loading import begin, finish
from catnet.model.attention import ATTENTION
from catnet.model.networks import NETWORKS
from catnet.train import build_objective, open_training

META = torch.device("meta")
ENGINE = Engine(META, 0, 1, mixed=False)
CROSSING = [name for name, kind in ATTENTION.items() if kind.cross]


@pytest.fixture(autouse=True)
def nothing_from_the_host(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the host sends numbers that it has just made")

    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # meta has none
    monkeypatch.setattr(torch.Tensor, "new_tensor", refuse)
    make = torch.tensor
    monkeypatch.setattr(
        torch, "tensor", lambda *values, **how: refuse() if how.get("device") else make(*values)
    )


def step_of(folder):
    """The loss of a step: its slices taken, augmented and segmented; the guard notes it."""
    _, source = open_training(folder)
    source = source.resident(META)
    objective = ENGINE.place(build_objective(folder.run))
    guard = Guard(folder, engine=ENGINE, redraw=lambda step: None)
    episode = finish(begin(source, folder.run, engine=ENGINE, step=0), source, engine=ENGINE)
    losses = objective(episode)
    losses.total.backward()
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    guard.check(1, loss=losses.total, norm=norm, model=objective)
    return losses.total


@pytest.mark.parametrize(
    "settings",
    [
        *(f"model.name={name} model.rounds=4" for name in NETWORKS),
        *(f"model.mask_on={place} model.mask_how=bias" for place in ("queries", "keys", "none")),
        *(f"model.attention={name}" for name in ATTENTION),
        *(f"model.cross_attention={name} model.mask_on=keys" for name in CROSSING),
        "model.position=peg model.ffn=conv data.shots=2",
        "model.score=softmax model.rounds=0 train.batch_norm=frozen",
    ],
)
def test_a_step_waits_for_no_number(tiny, settings):
    total = step_of(tiny("train.batch=2", "machine.log_every=5", *settings.split()))
    assert total.device == META
    assert total.shape == ()


def test_what_is_written_down_is_asked_for(tiny):
    """The step after which the log is due waits: the stand-in refuses whoever asks."""
    with pytest.raises(NotImplementedError, match="meta"):
        step_of(tiny("machine.log_every=1"))
