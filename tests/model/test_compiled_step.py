"""The forward pass of a training step as one compiled graph, which nothing on the host breaks."""

import subprocess
import sys
from pathlib import Path

import pytest

COMPILE = """
import torch
from catnet.config import ModelSettings
from catnet.episode import Episode
from catnet.model.loss import Objective
from catnet.model.networks import initial_model

torch.set_num_threads(1)
settings = ModelSettings(encoder="tu-test_resnet", dim=32, rounds=1)
objective = Objective(initial_model(settings, seed=0), alignment=1.0, early=1.0).train()
x = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
masks = (x > 1).float()
episode = Episode(x[None, :1, None], masks[None, :1], x[1:, None], masks[1:])
compiled = torch.compile(objective, backend="aot_eager")
print(objective(episode).total.item(), compiled(episode).total.item())
print(dict(torch._dynamo.utils.counters["graph_break"]))
"""


@pytest.mark.slow
def test_catnet_compiles_to_one_graph_that_says_the_same():
    """In a process of its own: the shape checks that the tests install cannot be compiled."""
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", COMPILE], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    losses, breaks = done.stdout.splitlines()
    plain, compiled = map(float, losses.split())
    assert compiled == pytest.approx(plain, rel=1e-5)
    assert breaks == "{}"
