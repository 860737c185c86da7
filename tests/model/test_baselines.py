"""PANet, ADNet and ALPNet against their equations, position by position."""

import pytest
import torch
from slow_networks import (
    SLOWLY,
    dice_slowly,
    enlarge_slowly,
    entropy_slowly,
    score_slowly,
    share_slowly,
)

from catnet.model.alpnet import LocalHead
from catnet.model.loss import Objective

each = pytest.mark.parametrize("name", SLOWLY)
PENALTY = {"panet": lambda model: 0.0, "alpnet": lambda model: 0.0}
PENALTY["adnet"] = lambda model: -float(model.head.threshold) / 20


def slow_logits(model, episode, number):
    """The logits of one episode, from what the encoder gives."""
    support = model.encode(episode.support[number]).feature
    masks = episode.support_mask[number]
    shares = torch.stack([share_slowly(mask, like=support) for mask in masks])
    query = model.encode(episode.query[number : number + 1]).feature[0]
    return SLOWLY[model.name](model, support, shares, query)


@each
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shots", [1, 3])
@torch.no_grad()
def test_the_mask_is_that_of_the_equation(name, training, shots, headless, episodes):
    model, episode = headless(name).train(training), episodes(shots=shots)
    (got,) = model(episode).logits
    for number in range(2):
        expected = slow_logits(model, episode, number)
        torch.testing.assert_close(got[number].double(), expected, rtol=1e-4, atol=2e-4)
    assert 0 < (got > 0).sum() < got.numel()


@each
@torch.no_grad()
def test_the_loss_is_that_of_the_equation(name, headless, episodes):
    """Cross entropy, Dice, alignment of every shot, and ADNet's T / 20."""
    model, episode = headless(name).train(), episodes(shots=2, height=32, width=48)
    losses = Objective(model, alignment=0.3, early=1.0)(episode)
    segmentation, alignment, size = [], [], (32, 48)
    for number in range(2):
        logits = slow_logits(model, episode, number)
        enlarged, truth = enlarge_slowly(logits, size), episode.query_mask[number]
        segmentation.append(entropy_slowly(enlarged, truth) + dice_slowly(enlarged, truth))
        found = (logits > 0).double()
        assert 0 < found.sum() < found.numel()
        query = model.encode(episode.query[number : number + 1]).feature
        shots = zip(
            model.encode(episode.support[number]).feature, episode.support_mask[number], strict=True
        )
        costs = [
            entropy_slowly(
                enlarge_slowly(SLOWLY[name](model, query, found[None], feature), size), mask
            )
            for feature, mask in shots
        ]
        alignment.append(sum(costs) / 2)
    assert losses.segmentation.item() == pytest.approx(sum(segmentation) / 2, abs=2e-4)
    assert losses.alignment.item() == pytest.approx(sum(alignment) / 2, abs=2e-4)
    total = sum(segmentation) / 2 + 0.3 * sum(alignment) / 2 + PENALTY[name](model)
    assert losses.total.item() == pytest.approx(total, abs=2e-4)
    assert min(alignment) > 0.01


def test_the_penalty_of_adnet_raises_its_threshold(headless, episodes):
    """The lower T = -threshold, the tighter the foreground; the slope is 1 / 20."""
    model = headless("adnet")
    (slope,) = torch.autograd.grad(model.penalty(), [model.head.threshold])
    assert slope.item() == pytest.approx(-0.05)
    assert type(model)(model.settings).head.threshold.item() == 10


@pytest.mark.parametrize(
    ("size", "grid", "cells"),
    [(32, 8, 8), (16, 8, 8), (8, 8, 8), (4, 8, 4), (32, 4, 4), (12, 8, 8)],
)
@torch.no_grad()
def test_a_map_has_as_many_cells_as_the_grid_but_no_more_than_tokens(size, grid, cells):
    head, support = LocalHead(grid=grid), torch.randn(1, 2, 3, size, size)
    assert head.train().pool(support).shape == (1, 2 * cells**2, 3)
    assert head.eval().pool(support).shape == (1, 2 * min(2 * grid, size) ** 2, 3)
    if size == cells:
        tokens = support.permute(0, 1, 3, 4, 2).reshape(1, -1, 3)
        torch.testing.assert_close(head.train().pool(support), tokens)


@torch.no_grad()
def test_a_cell_of_ninety_five_percent_is_no_prototype_and_one_of_more_is():
    head = LocalHead(grid=1).train()
    support = torch.randn(1, 1, 4, 10, 10, generator=torch.Generator().manual_seed(0))
    query, share = support[:, 0], torch.ones(1, 1, 10, 10)
    for missing, local in ((5, False), (4, True)):
        covered = share.clone()
        covered.flatten()[:missing] = 0
        vector = query[0, :, 3, 3].double()
        whole, rest = (
            score_slowly(vector, query[0].double()[:, part[0, 0] > 0].mean(dim=1))
            for part in (covered, 1 - covered)
        )
        cell = score_slowly(vector, query[0].double().mean(dim=(1, 2)))
        scores = torch.tensor([whole, cell] if local else [whole], dtype=torch.float64)
        expected = float((scores.softmax(0) * scores).sum()) - rest
        assert head(support, covered, query)[0, 3, 3].item() == pytest.approx(expected, abs=1e-4)


@torch.no_grad()
def test_alpnet_without_a_covered_cell_is_panet(headless, episodes):
    """Only the two class-level prototypes remain."""
    alpnet, panet, episode = headless("alpnet", grid=1).train(), headless("panet"), episodes()
    panet.load_state_dict(alpnet.state_dict())
    assert 0.05 < episode.support_mask.mean(dim=(1, 2, 3)).min() < 0.95
    torch.testing.assert_close(alpnet(episode).logits[0], panet(episode).logits[0])
    finer = headless("alpnet", grid=8).train()
    assert not torch.allclose(finer(episode).logits[0], panet(episode).logits[0], atol=1e-3)
