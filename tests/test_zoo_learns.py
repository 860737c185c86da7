"""Every mechanism of the zoo, inside the whole network, learns a batch of simple episodes."""

import pytest
import torch

from catnet.config import Run
from catnet.episode import Episode
from catnet.model.attention import ATTENTION
from catnet.train import build_objective, build_optimizer

STEPS = 20


def make_run(name):
    model = {"encoder": "tu-test_resnet", "output_stride": 8, "dim": 32, "rounds": 2}
    model |= {"attention": name, "cross_attention": name if ATTENTION[name].cross else "masked"}
    return Run.model_validate({"model": model, "train": {"optimizer": "adamw", "rate": 3e-3}})


def make_episode(*, batch=2, size=64):
    """Bright rectangles in noise; each side of an episode shows one, at another place."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.zeros(batch, 2, size, size)
    for mask in masks.flatten(0, 1):
        row, column = torch.randint(2, size - 34, (2,), generator=generator).tolist()
        mask[row : row + 32, column : column + 28] = 1
    images = 0.5 * torch.randn(masks.shape, generator=generator) + 2 * masks
    return Episode(images[:, :1, None], masks[:, :1], images[:, 1:], masks[:, 1])


@pytest.mark.parametrize("name", ATTENTION)
def test_the_loss_falls_and_the_mechanism_moves(name):
    run, episode = make_run(name), make_episode()
    objective = build_objective(run)
    optimizer = build_optimizer(objective, run.train)
    own = list(objective.model.cmat.parameters())
    before = [parameter.detach().clone() for parameter in own]
    losses = []
    for _ in range(STEPS):
        loss = objective(episode).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5]), losses
    assert all(not torch.equal(was, now) for was, now in zip(before, own, strict=True))
