"""In half precision every step stays finite, whatever an episode holds."""

import numpy as np
import pytest
import torch

from catnet.config import Run
from catnet.engine import Engine
from catnet.episode import Episode
from catnet.train import build_objective, build_optimizer, find_gradient

SIZE = 32
KINDS = {  # what is wrong with an episode: its intensities, its support mask, its query mask
    "nothing": (lambda x: x, "block", "block"),
    "one pixel": (lambda x: x, "pixel", "pixel"),
    "all of it": (lambda x: x, "full", "full"),
    "not on the query": (lambda x: x, "block", "none"),
    "not on the support": (lambda x: x, "none", "block"),
    "nowhere": (lambda x: x, "none", "none"),
    "constant": (lambda x: torch.full_like(x, 0.7), "block", "block"),
    "zero": (torch.zeros_like, "pixel", "full"),
    "loud": (lambda x: x * 1e4, "block", "block"),
    "louder": (lambda x: x * 1e18, "pixel", "block"),
    "faint": (lambda x: x * 1e-4, "block", "block"),
    "fainter": (lambda x: x * 1e-38, "full", "pixel"),  # below the smallest normal number
    "far off": (lambda x: x + 1e6, "block", "block"),
    "one spike": (lambda x: x.index_fill(-1, torch.tensor([5]), 1e8), "block", "pixel"),
    "two levels": (lambda x: x.sign(), "block", "block"),
}


def mask(kind, generator):
    found = torch.zeros(SIZE, SIZE)
    row, column = generator.integers(SIZE, size=2)
    if kind == "pixel":
        found[row, column] = 1
    elif kind == "block":
        found[row : row + 12, column : column + 9] = 1
    elif kind == "full":
        found[:] = 1
    return found


def hostile(number):
    """Two episodes by number, of all pairs of kinds in turn."""
    generator = np.random.default_rng([7, number])
    names = generator.choice(list(KINDS), size=2)
    parts = []
    for change, support, query in (KINDS[name] for name in names):
        images = torch.from_numpy(generator.normal(size=(2, 1, SIZE, SIZE)).astype(np.float32))
        parts.append((change(images), mask(support, generator), mask(query, generator)))
    return names, Episode(
        support=torch.stack([images[:1] for images, _, _ in parts]),
        support_mask=torch.stack([support[None] for _, support, _ in parts]),
        query=torch.stack([images[1] for images, _, _ in parts]),
        query_mask=torch.stack([query for _, _, query in parts]),
    )


@pytest.mark.parametrize("steps", [150, pytest.param(20_000, marks=pytest.mark.long)])
def test_training_on_hostile_episodes_stays_finite(steps):
    run = Run(
        model={"encoder": "tu-test_resnet", "dim": 16, "rounds": 2},
        train={"precision": "bfloat16", "rate": 0.01, "optimizer": "adamw"},
    )
    engine = Engine(torch.device("cpu"), 0, 1, mixed=True)
    objective = build_objective(run)
    optimizer = build_optimizer(objective, run.train)
    for number in range(steps):
        names, episode = hostile(number)
        losses, norm = find_gradient(
            objective, episode, optimizer, engine=engine, clip=1.0, draw=(0, number)
        )
        assert losses.total.isfinite(), (number, names)
        assert norm.isfinite(), (number, names)
        optimizer.step()
    for name, value in objective.state_dict().items():
        assert value.isfinite().all(), name
    with torch.no_grad(), engine.autocast():
        for number in range(30):
            names, episode = hostile(number)
            probability = objective.eval().model(episode).probability
            assert probability.isfinite().all(), names
