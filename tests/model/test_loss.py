import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from catnet.model.loss import Objective, segmentation_loss
from catnet.model.network import Prediction

both = pytest.mark.parametrize("score", ["threshold", "softmax"])


@pytest.fixture
def prediction():
    """Two episodes of two shots, three rounds of masks at 3 x 4 tokens of 8 pixels."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    logits = tuple(3 * normal(2, 3, 4) for _ in range(3))
    return Prediction(logits, normal(2, 2, 5, 3, 4), normal(2, 5, 3, 4), torch.Size((24, 32)))


@pytest.fixture
def masks():
    generator = torch.Generator().manual_seed(5)
    return (torch.randn(2, 2, 24, 32, generator=generator) > 0.3).float()


def entropy_slowly(logits, truth):
    terms = []
    for logit, label in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        terms.append(-math.log(probability if label else 1 - probability))
    return sum(terms) / len(terms)


def dice_slowly(logits, truth):
    both, total = 0.0, 0.0
    for logit, label in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        both, total = both + probability * label, total + probability + label
    return 1 - (2 * both + 1) / (total + 1)


def test_soft_dice_and_cross_entropy_of_four_pixels():
    logits = torch.tensor([[[0.0, math.log(3)], [-math.log(3), 0.0]]])
    truth = torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    entropy = -(2 * math.log(0.5) + 2 * math.log(0.75)) / 4
    dice = 1 - (2 * (0.5 + 0.75) + 1) / (0.5 + 0.75 + 0.25 + 0.5 + 2 + 1)
    assert segmentation_loss(logits, truth).item() == pytest.approx(entropy + dice, abs=1e-6)


def test_dice_is_taken_of_each_episode_and_then_averaged(prediction, masks):
    logits, truth = prediction.enlarged(prediction.logits[0]), masks[:, 0].clone()
    truth[1, 3:] = 0
    pairs = list(zip(logits, truth, strict=True))
    expected = sum(entropy_slowly(*pair) + dice_slowly(*pair) for pair in pairs) / 2
    assert segmentation_loss(logits, truth).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_a_right_answer_costs_nothing_even_where_the_organ_is_absent(label):
    truth = torch.full((1, 4, 4), label)
    assert segmentation_loss(40 * (2 * truth - 1), truth).item() == pytest.approx(0, abs=1e-6)
    assert segmentation_loss(-40 * (2 * truth - 1), truth).item() > 40


@pytest.mark.parametrize(("early", "weights"), [(1.0, (1, 1, 1)), (0.5, (0.25, 0.5, 1))])
def test_deep_supervision_weighs_an_earlier_mask_less(early, weights, headless, prediction, masks):
    objective = Objective(headless(), alignment=1.0, early=early)
    losses = [
        segmentation_loss(
            F.interpolate(logits[:, None], (24, 32), mode="bilinear")[:, 0], masks[:, 0]
        ).item()
        for logits in prediction.logits
    ]
    expected = sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)
    got = objective.deep_supervision(prediction, masks[:, 0]).item()
    assert got == pytest.approx(expected, abs=1e-5)


def alignment_slowly(head, prediction, masks, episode):
    """PANet's loss of one episode: the query, as predicted, segments each of its supports."""
    kept = prediction.logits[-1][episode] > 0
    if not kept.any():
        return 0.0
    query = prediction.query[episode]
    prototypes = [
        torch.stack([query[:, r, c] for r, c in where.nonzero().tolist()]).mean(dim=0)
        for where in (kept, ~kept)
    ]
    costs = []
    for feature, mask in zip(prediction.support[episode], masks[episode], strict=True):
        foreground, background = (
            20 * F.cosine_similarity(feature, prototype[:, None, None], dim=0)
            for prototype in prototypes
        )
        threshold = head.threshold
        logits = foreground - background if threshold is None else 0.5 * (foreground - threshold)
        enlarged = F.interpolate(logits[None, None], mask.shape, mode="bilinear")
        costs.append(entropy_slowly(enlarged, mask))
    return sum(costs) / len(costs)


@both
@torch.no_grad()
def test_alignment_equals_a_loop_over_episodes_and_shots(score, headless, prediction, masks):
    objective = Objective(headless(score=score), alignment=1.0, early=1.0)
    head = objective.model.head
    expected = [alignment_slowly(head, prediction, masks, episode) for episode in range(2)]
    got = objective.alignment_loss(prediction, masks).item()
    assert got == pytest.approx(sum(expected) / 2, abs=1e-4)
    assert min(expected) > 0.01


@both
def test_an_empty_prediction_counts_zero_and_sends_no_gradient(score, headless, prediction, masks):
    objective = Objective(headless(score=score), alignment=1.0, early=1.0)
    last = prediction.logits[-1].clone()
    last[0] = -1.0
    prediction = replace(
        prediction,
        logits=(*prediction.logits[:2], last),
        support=prediction.support.requires_grad_(),
        query=prediction.query.requires_grad_(),
    )
    loss = objective.alignment_loss(prediction, masks)
    expected = alignment_slowly(objective.model.head, prediction, masks, 1) / 2
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    for gradient in torch.autograd.grad(loss, [prediction.support, prediction.query]):
        assert not gradient[0].any()
        assert gradient[1].isfinite().all()
        assert gradient[1].any()


@pytest.mark.parametrize("alignment", [0.0, 1.0, 0.3])
def test_the_total_is_segmentation_plus_weighted_alignment(alignment, headless, episodes):
    losses = Objective(headless(), alignment=alignment, early=1.0)(episodes())
    expected = losses.segmentation + alignment * losses.alignment
    assert losses.alignment > 0.01
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-6)
    assert not losses.segmentation.requires_grad
    assert not losses.alignment.requires_grad


def test_the_gradient_of_the_alignment_is_weighed_as_the_loss_is(headless, episodes):
    model = headless()
    parameters = list(model.parameters())

    def gradient(weight):
        total = Objective(model, alignment=weight, early=1.0)(episodes()).total
        parts = torch.autograd.grad(total, parameters)
        return torch.cat([part.flatten() for part in parts])

    none, whole = gradient(0.0), gradient(1.0)
    assert (whole - none).abs().max() > 1e-3
    torch.testing.assert_close(gradient(0.3), 0.7 * none + 0.3 * whole, rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_episodes_losses(headless, episodes):
    objective = Objective(headless(), alignment=1.0, early=0.7)
    batch = episodes(batch=3, shots=2)
    alone = [objective(batch[i : i + 1]).total.item() for i in range(3)]
    assert objective(batch).total.item() == pytest.approx(sum(alone) / 3, abs=1e-4)
    assert max(alone) - min(alone) > 0.01
