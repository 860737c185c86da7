"""Q-Net against its equations, and its refinement against autograd."""

from dataclasses import replace

import pytest
import torch
from slow_networks import (
    at_every_position,
    average_slowly,
    dice_slowly,
    enlarge_slowly,
    entropy_slowly,
    score_slowly,
    share_slowly,
)
from torch import nn
from torch.nn import functional as F

from catnet.model.loss import Objective
from catnet.model.refinement import refine


def levels_slowly(model, encoded):
    """The feature, and the last stage pooled 2 x 2 and reduced (n c h w), in double precision."""
    reduce = model.coarse[1]
    pooled = F.avg_pool2d(encoded.deep.double(), 2)
    weight, bias = reduce.weight[:, :, 0, 0].double(), reduce.bias.double()
    coarse = torch.einsum("oc,nchw->nohw", weight, pooled) + bias[:, None, None]
    return encoded.feature.double(), coarse


def threshold_slowly(model, encoded):
    """t of one query."""
    mean = encoded.deep[0].double().flatten(1).mean(dim=1)
    return float(model.threshold.weight[0].double() @ mean + model.threshold.bias.double())


def refine_slowly(prototype, query, *, threshold, steps):
    """torch's Adam, on torch's cross entropy of the whole map, by autograd, for one episode."""
    moving = nn.Parameter(prototype.clone())
    optimizer = torch.optim.Adam([moving], lr=0.01)
    low, span = query.min(), query.max() - query.min() + 1e-5
    for _ in range(steps):
        scores = at_every_position(query, lambda vector: score_slowly(vector, moving.detach()))
        found = scores > threshold
        rebuilt = torch.where(found, moving[:, None, None], query)
        loss = F.binary_cross_entropy(
            ((rebuilt - low) / span).sigmoid(), ((query - low) / span).sigmoid()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return moving.detach()


def fused_slowly(pairs, *, threshold, steps):
    """0.9 and 0.1 of the logits of both scales; a pair is prototype and query."""
    logits = []
    for prototype, query in pairs:
        if steps:
            prototype = refine_slowly(prototype, query, threshold=threshold, steps=steps)
        score = at_every_position(query, lambda v, p=prototype: score_slowly(v, p))
        logits.append(0.5 * (score - threshold))
    return 0.9 * logits[0] + 0.1 * enlarge_slowly(logits[1], logits[0].shape)


def logits_slowly(model, episode, number, *, steps):
    support = model.encode(episode.support[number])
    query = model.encode(episode.query[number : number + 1])
    pairs = []
    for one, other in zip(levels_slowly(model, support), levels_slowly(model, query), strict=True):
        masks = episode.support_mask[number]
        shares = torch.stack([share_slowly(mask, like=one) for mask in masks])
        pairs.append((average_slowly(one, shares), other[0]))
    return fused_slowly(pairs, threshold=threshold_slowly(model, query), steps=steps)


@pytest.mark.parametrize(("training", "refinement"), [(True, 7), (False, 0), (False, 3)])
@pytest.mark.parametrize("shots", [1, 2])
def test_the_mask_is_that_of_the_equation(training, refinement, shots, headless, episodes):
    model = headless("qnet", refinement=refinement).train(training).requires_grad_(False)
    episode = episodes(shots=shots)
    (got,) = model(episode).logits
    for number in range(2):
        steps = 0 if training else refinement
        plain = logits_slowly(model, episode, number, steps=0)
        expected = logits_slowly(model, episode, number, steps=steps)
        torch.testing.assert_close(got[number].double(), expected, rtol=1e-3, atol=1e-3)
        assert torch.allclose(plain, expected, atol=0.05) == (not steps)
    assert 0 < (got > 0).sum() < got.numel()


@torch.no_grad()
def test_the_loss_is_that_of_the_equation(headless, episodes):
    """Cross entropy, Dice, and the alignment with the query's t; no term for t itself."""
    model, episode = headless("qnet").train(), episodes(shots=2, height=32, width=48)
    losses = Objective(model, alignment=0.3, early=1.0)(episode)
    segmentation, alignment, size = [], [], (32, 48)
    for number in range(2):
        logits = logits_slowly(model, episode, number, steps=0)
        enlarged, truth = enlarge_slowly(logits, size), episode.query_mask[number]
        segmentation.append(entropy_slowly(enlarged, truth) + dice_slowly(enlarged, truth))
        found = (logits > 0).double()
        assert 0 < found.sum() < found.numel()
        query = model.encode(episode.query[number : number + 1])
        prototypes = [
            average_slowly(level, share_slowly(found, like=level)[None])
            for level in levels_slowly(model, query)
        ]
        costs, threshold = [], threshold_slowly(model, query)
        shots = levels_slowly(model, model.encode(episode.support[number]))
        for fine, coarse, mask in zip(*shots, episode.support_mask[number], strict=True):
            pairs = list(zip(prototypes, (fine, coarse), strict=True))
            seen = fused_slowly(pairs, threshold=threshold, steps=0)
            costs.append(entropy_slowly(enlarge_slowly(seen, size), mask))
        alignment.append(sum(costs) / 2)
    assert losses.segmentation.item() == pytest.approx(sum(segmentation) / 2, abs=2e-4)
    assert losses.alignment.item() == pytest.approx(sum(alignment) / 2, abs=2e-4)
    total = losses.segmentation + 0.3 * losses.alignment
    assert losses.total.item() == pytest.approx(total.item(), abs=1e-6)


@pytest.fixture
def queries():
    """Three queries that turn from their prototype bit by bit, and a threshold for each."""
    generator = torch.Generator().manual_seed(2)
    prototype, other = torch.randn(2, 3, 6, 1, 1, generator=generator, dtype=torch.float64)
    turn = torch.linspace(0, 3, 30, dtype=torch.float64).reshape(5, 6)
    query = prototype + turn * other
    query += 0.1 * torch.randn(query.shape, generator=generator, dtype=torch.float64)
    return prototype[..., 0, 0], query, torch.tensor([8.0, 10.0, 30.0], dtype=torch.float64)


def found_by(prototype, query, *, threshold):
    return at_every_position(query, lambda vector: score_slowly(vector, prototype)) > threshold


@pytest.mark.parametrize("steps", [0, 1, 2, 100])
def test_refinement_is_adam_on_the_cross_entropy(steps, queries):
    prototype, query, threshold = queries
    got = refine(prototype, query, threshold=threshold, steps=steps)
    for number in range(3):
        level = float(threshold[number])
        expected = refine_slowly(prototype[number], query[number], threshold=level, steps=steps)
        torch.testing.assert_close(got[number], expected, rtol=1e-4, atol=1e-4)
    moved = (got - prototype).abs().amax(dim=1)
    assert (moved[:2] > 0.002 * steps).all() or not steps
    if steps == 100:  # what is found has grown on the way
        pair = {"query": query[0], "threshold": threshold[0]}
        before, after = (found_by(p[0], **pair).sum() for p in (prototype, got))
        assert 0 < before < after
    assert moved[2] < 1e-6  # a score never exceeds 20: nothing found, nothing refined


def test_refinement_brings_the_prototype_nearer_to_what_it_finds(queries):
    prototype, query, threshold = queries
    got = refine(prototype, query, threshold=threshold, steps=300)
    for number in range(2):
        vector, level = prototype[number], threshold[number]
        found = found_by(got[number], query[number], threshold=level)
        target = query[number][:, found].mean(dim=1)
        assert (got[number] - target).norm() < 0.5 * (vector - target).norm()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_refinement_is_the_same_in_every_mode_and_time_after_time(mode, headless, episodes):
    model, episode = headless("qnet", refinement=5), episodes()
    with torch.no_grad():
        expected = model(episode).probability
    with mode():
        again = [model(episode).probability for _ in range(2)]
    assert all(torch.equal(one.detach(), expected) for one in again)
    unrefined = headless("qnet", refinement=0)
    with mode():
        assert not torch.allclose(unrefined(episode).probability, expected, atol=1e-3)


def test_training_does_not_refine(headless, episodes):
    few, many = (headless("qnet", refinement=steps) for steps in (0, 9))
    many.load_state_dict(few.state_dict())
    assert torch.equal(few.train()(episodes()).logits[0], many.train()(episodes()).logits[0])
    assert not torch.equal(few.eval()(episodes()).logits[0], many.eval()(episodes()).logits[0])


@torch.no_grad()
def test_the_threshold_is_the_querys_own(headless, episodes):
    model, one = headless("qnet").train(), episodes()
    assert type(model)(model.settings).threshold.bias.item() == 10
    other = replace(one, query=one.query.flip(0))
    given, turned = model(one).threshold, model(other).threshold
    torch.testing.assert_close(given.flip(0), turned)
    same = replace(one, support=one.support.flip(0), support_mask=one.support_mask.flip(0))
    torch.testing.assert_close(model(same).threshold, given)
    assert (given[0] - given[1]).abs() > 1e-3
