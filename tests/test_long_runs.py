"""Memory does not grow with the steps of a run, nor with the slices that are evaluated."""

import resource
from pathlib import Path

import numpy as np
import pytest
import torch
from trials import silent

from catnet.data.store import open_cases
from catnet.evaluate.cases import segment_case
from catnet.evaluate.predictors import NetworkPredictor
from catnet.model.networks import initial_model
from catnet.train import train

PAGE = resource.getpagesize()
TINY = ("model.dim=8", "model.rounds=1", "train.batch=1", "machine.checkpoint_every=50")


def resident():
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def growth(sizes):
    """Bytes a step, of the second half: the first one fills caches."""
    later = np.array(sizes[len(sizes) // 2 :], dtype=float)
    return np.polyfit(np.arange(len(later)), later, deg=1)[0]


pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="needs /proc to see how much memory is held"
)


@pytest.mark.parametrize("steps", [300, pytest.param(5000, marks=pytest.mark.long)])
def test_training_holds_no_more_memory_with_time(steps, tiny):
    sizes = []
    folder = tiny(f"train.steps={steps}", "machine.picture_every=100", *TINY)
    train(folder, report=lambda now: sizes.append(resident()), say=silent)
    assert len(sizes) == steps
    assert (
        growth(sizes) * steps < 30 * 2**20
    )  # a step that is not let go holds more, in 5000 a slice does


@pytest.mark.parametrize("rounds", [6, pytest.param(84, marks=pytest.mark.long)])
def test_evaluation_holds_no_more_memory_with_time(rounds, tiny):
    """A round is a case of 12 slices."""
    folder = tiny(*TINY)
    cases = open_cases(folder.card)
    network = initial_model(folder.run.model, seed=0).eval()
    predictor = NetworkPredictor(network, device=torch.device("cpu"), precision=torch.float32)
    settings = folder.run.evaluate.model_copy(update={"protocols": ("EP2",)})
    sizes = []
    for number in range(rounds):
        query, support = cases[number % 5], cases[5]
        segment_case(
            {"catnet": predictor}, query, [support], organs={"liver": 1}, settings=settings
        )
        sizes.append(resident())
    assert growth(sizes) * rounds < 30 * 2**20
