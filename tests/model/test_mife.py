import math

import pytest
import torch
from einops import rearrange
from torch import nn

from catnet.model.encoder import Encoded
from catnet.model.mife import MIFE, similarity_prior

DIM, DEEP = 5, 7


@pytest.fixture
def sides():
    """Two episodes of three shots: encoded supports, the share of every token, encoded queries."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    share = normal(2, 3, 3, 4).clamp(0, 1)
    share[1, 0] = 0
    share[0] = 0
    share[0, 1, 2, 1] = 0.3  # two tokens alone, so that some best cosines are negative
    share[0, 2, 0, 3] = 0.1
    support = Encoded(normal(2, 3, DIM, 3, 4), normal(2, 3, DEEP, 3, 4))
    return support, share, Encoded(normal(2, DIM, 3, 4), normal(2, DEEP, 3, 4))


@pytest.fixture
def mife():
    generator = torch.Generator().manual_seed(1)
    module = MIFE(dim=DIM).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module


def cosine(one, other):
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def places(x):
    """Every position's values: (s, c, h, w) shot by shot, row by row, as lists."""
    return rearrange(x, "s c h w -> (s h w) c").tolist()


def prior_slowly(support, share, query):
    """One episode: the best cosine with any foreground token of any shot, then to [0, 1]."""
    part = share.flatten().tolist()
    foreground = [p for p, m in zip(places(support), part, strict=True) if m > 0]
    best = [max(cosine(here, there) for there in foreground) for here in places(query[None])]
    low, high = min(best), max(best)
    return torch.tensor([(value - low) / (high - low) for value in best], dtype=torch.float64)


def test_the_prior_equals_a_loop_over_positions(sides):
    support, share, query = sides
    got = similarity_prior(support.deep, share, query.deep)
    for episode in range(2):
        expected = prior_slowly(support.deep[episode], share[episode], query.deep[episode])
        torch.testing.assert_close(got[episode].flatten().double(), expected, rtol=1e-4, atol=1e-4)


def test_the_prior_is_one_where_the_query_is_the_support_itself():
    deep = torch.eye(12).reshape(1, 12, 3, 4)
    share = torch.zeros(1, 1, 3, 4)
    share[0, 0, 1, 2] = 0.01
    prior = similarity_prior(deep[:, None], share, deep)
    torch.testing.assert_close(prior[0], (share[0, 0] > 0).float(), rtol=0, atol=1e-4)


def test_without_foreground_prior_and_prototype_are_zero(mife, sides):
    support, share, query = sides
    none = torch.zeros_like(share)
    assert not similarity_prior(support.deep, none, query.deep).any()
    _, query_feature, _ = mife(support, none, query)
    zeros = torch.zeros(2, DIM + 1, 3, 4, dtype=torch.float64)
    expected = mife.mix_query(torch.cat([query.feature, zeros], dim=1)).relu()
    torch.testing.assert_close(query_feature, expected)


def test_without_foreground_the_prior_has_no_gradient(sides):
    support, share, query = sides
    deep = [support.deep.requires_grad_(), query.deep.requires_grad_()]
    prior = similarity_prior(deep[0], torch.zeros_like(share), deep[1])
    for gradient in torch.autograd.grad(prior.sum(), deep):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def prototype_slowly(support, share):
    """The mean over all foreground of all shots, not the mean of the shots' means."""
    total, weight = torch.zeros(DIM, dtype=torch.float64), 0.0
    for row, part in zip(places(support), share.flatten().tolist(), strict=True):
        total = total + part * torch.tensor(row, dtype=torch.float64)
        weight += part
    return total / weight


def mix_slowly(convolution, feature, prototype, last):
    """One map: relu(W [F, p, m] + b) position by position; feature (c, h, w), last (h, w)."""
    out = torch.zeros_like(feature)
    for row in range(feature.shape[1]):
        for column in range(feature.shape[2]):
            here = [feature[:, row, column], prototype, last[row, column, None]]
            mixed = convolution.weight[:, :, 0, 0] @ torch.cat(here) + convolution.bias
            out[:, row, column] = mixed.clamp(min=0)
    return out


def classify_slowly(classify, feature):
    """conv1x1(relu(conv3x3)) of one map, with zeros around it."""
    first, _, last = classify
    padded = nn.functional.pad(feature, (1, 1, 1, 1))
    out = torch.zeros(feature.shape[1:], dtype=torch.float64)
    for row in range(feature.shape[1]):
        for column in range(feature.shape[2]):
            window = padded[:, row : row + 3, column : column + 3]
            hidden = (first.weight * window).sum(dim=(1, 2, 3)) + first.bias
            out[row, column] = last.weight[0, :, 0, 0] @ hidden.clamp(min=0) + last.bias[0]
    return out


@torch.no_grad()
def test_mife_equals_its_equations(mife, sides):
    support, share, query = sides
    got_support, got_query, got_mask = mife(support, share, query)
    priors = similarity_prior(support.deep, share, query.deep).double()
    close = {"rtol": 1e-4, "atol": 1e-4}
    for episode in range(2):
        prototype = prototype_slowly(support.feature[episode], share[episode])
        for shot in range(3):
            feature, part = support.feature[episode, shot], share[episode, shot]
            expected = mix_slowly(mife.mix_support, feature, prototype, part)
            torch.testing.assert_close(got_support[episode, shot], expected, **close)
        expected = mix_slowly(mife.mix_query, query.feature[episode], prototype, priors[episode])
        torch.testing.assert_close(got_query[episode], expected, **close)
        mask = classify_slowly(mife.classify, expected)
        torch.testing.assert_close(got_mask[episode], mask, **close)
