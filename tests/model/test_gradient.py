from dataclasses import replace

import pytest
import torch

from catnet.model.loss import Objective

mask_ons = pytest.mark.parametrize("mask_on", ["queries", "keys", "none"])
mask_hows = pytest.mark.parametrize("mask_how", ["multiply", "bias"])
directions = pytest.mark.parametrize("direction", ["both", "support_to_query", "query_to_support"])
scores = pytest.mark.parametrize("score", ["threshold", "softmax"])


def gradients_of(objective, episode):
    """Gradient of the total loss by parameter name; None where there is none."""
    names, parameters = zip(*objective.named_parameters(), strict=True)
    gradients = torch.autograd.grad(objective(episode).total, parameters, allow_unused=True)
    return dict(zip(names, gradients, strict=True))


def unreached(objective, episode):
    """Names of the parameters that the loss does not reach, but for the noise of rounding."""
    pairs = gradients_of(objective, episode).items()
    return [name for name, gradient in pairs if gradient is None or gradient.abs().max() < 1e-7]


def without_organ(episode):
    """The same episode, but nothing is to be found in its queries."""
    return replace(episode, query_mask=torch.zeros_like(episode.query_mask))


@mask_ons
@mask_hows
@directions
@scores
@pytest.mark.parametrize(("rounds", "share_rounds"), [(1, False), (3, False), (3, True)])
@pytest.mark.parametrize("share_streams", [False, True])
def test_gradient_reaches_every_parameter(
    mask_on, mask_how, direction, score, rounds, share_rounds, share_streams, headless, episodes
):
    model = headless(
        mask_on=mask_on,
        mask_how=mask_how,
        direction=direction,
        score=score,
        rounds=rounds,
        share_rounds=share_rounds,
        share_streams=share_streams,
    )
    objective = Objective(model.train(), alignment=1.0, early=1.0)
    episode = episodes(height=32, width=48)
    assert unreached(objective, episode) == []
    assert unreached(objective, without_organ(episode)) == []


@scores
@pytest.mark.parametrize(("rounds", "output_stride"), [(1, 8), (3, 16)])
def test_gradient_reaches_every_parameter_of_the_encoder_too(
    score, rounds, output_stride, network, episodes
):
    model = network(encoder="tu-resnet18", rounds=rounds, score=score, output_stride=output_stride)
    objective = Objective(model.train(), alignment=1.0, early=1.0)
    assert unreached(objective, episodes(shots=2)) == []
    assert unreached(objective, without_organ(episodes())) == []


def test_every_parameter_of_the_head_and_mife_is_reached_without_rounds(network, episodes):
    objective = Objective(network(rounds=0).train(), alignment=1.0, early=1.0)
    assert unreached(objective, episodes()) == []


def assert_finite(objective, episode):
    losses = objective(episode)
    assert losses.total.isfinite()
    assert all(probability.isfinite().all() for probability in losses.prediction.rounds)
    for name, gradient in gradients_of(objective, episode).items():
        assert gradient is None or gradient.isfinite().all(), name


@mask_ons
@mask_hows
@scores
@pytest.mark.parametrize("kept", ["nothing", "everything"])
@pytest.mark.parametrize("support", ["empty", "full", "empty beside full", "coarse"])
def test_empty_and_full_masks_give_finite_losses_and_gradients(
    mask_on, mask_how, score, kept, support, headless, episodes
):
    bound = 1 - 1e-12 if kept == "nothing" else 1e-12
    model = headless(mask_on=mask_on, mask_how=mask_how, score=score, keep_threshold=bound)
    episode = episodes(height=32, width=48)
    if support != "coarse":
        episode.support_mask[0] = support == "full"
        episode.support_mask[1] = support != "empty"
    given = []
    for cmat in model.cmat:
        cmat.register_forward_pre_hook(lambda _, streams: given.append(streams[0].query_kept))
    assert_finite(Objective(model, alignment=1.0, early=1.0), episode)
    assert all((mask == (kept == "everything")).all() for mask in given)


@scores
@pytest.mark.parametrize("field", ["support", "query"])
def test_black_slices_give_finite_losses_and_gradients(score, field, network, episodes):
    episode = episodes()
    getattr(episode, field).zero_()
    model = network(score=score)
    assert_finite(Objective(model, alignment=1.0, early=1.0), episode)
    assert_finite(Objective(model.train(), alignment=1.0, early=1.0), episode)


@mask_ons
@mask_hows
@scores
def test_bfloat16_is_finite_and_says_about_the_same(mask_on, mask_how, score, network, episodes):
    model = network(mask_on=mask_on, mask_how=mask_how, score=score, rounds=1)
    objective, episode = Objective(model, alignment=1.0, early=1.0), episodes(shots=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert_finite(objective, episode)
        assert unreached(objective, episode) == []
        prediction = model(episode)
    assert prediction.probability.dtype == torch.float32
    assert (prediction.probability - model(episode).probability).abs().mean() < 0.02
