import math

import pytest
import torch
from torch.nn import functional as F

from catnet.model.ops import cosine_map, from_query, masked_average, to_tokens
from catnet.model.prototype import PrototypeHead

both = pytest.mark.parametrize("score", ["threshold", "softmax"])


@pytest.fixture
def sides():
    """Two episodes: support features of three shots, full-size masks, query features."""
    generator = torch.Generator().manual_seed(0)
    support = torch.randn(2, 3, 6, 3, 4, generator=generator, dtype=torch.float64) + 0.3
    query = torch.randn(2, 6, 3, 4, generator=generator, dtype=torch.float64) + 0.3
    masks = (torch.randn(2, 3, 24, 32, generator=generator) > 0.4).double()
    masks[1, 2] = 0
    return support, masks, query


def average_slowly(support, masks):
    """One episode: the mean over foreground pixels of features upsampled to the slice."""
    total, count = torch.zeros(support.shape[1], dtype=torch.float64), 0
    for feature, mask in zip(support, masks, strict=True):
        step = mask.shape[0] // feature.shape[1]
        for row, column in mask.nonzero().tolist():
            total += feature[:, row // step, column // step]
            count += 1
    return total / count


def cosine(one, other):
    return float(one @ other / (one.norm() * other.norm()))


def test_token_share_and_masked_average_equal_the_average_of_upsampled_features(sides):
    support, masks, _ = sides
    share = to_tokens(masks, like=support)
    got = masked_average(support, share)
    for episode in range(2):
        expected = average_slowly(support[episode], masks[episode])
        torch.testing.assert_close(got[episode], expected, rtol=1e-5, atol=1e-5)
        upsampled = F.interpolate(support[episode], (24, 32), mode="nearest")
        whole = (upsampled * masks[episode].unsqueeze(1)).sum((0, 2, 3)) / masks[episode].sum()
        torch.testing.assert_close(got[episode], whole, rtol=1e-5, atol=1e-5)


def test_token_share_is_the_part_of_the_token_that_is_covered():
    mask = torch.zeros(1, 1, 4, 6)
    mask[0, 0, 0, :3] = 1
    mask[0, 0, 2:, 4:] = 1
    expected = torch.tensor([[[[0.5, 0.25, 0], [0, 0, 1]]]])
    assert torch.equal(to_tokens(mask, like=torch.zeros(1, 2, 3)), expected)


def test_a_prototype_without_foreground_is_zero(sides):
    support, _, _ = sides
    assert not masked_average(support, torch.zeros(2, 3, 3, 4, dtype=torch.float64)).any()


def test_the_threshold_head_is_the_sigmoid_of_half_the_margin(sides):
    support, masks, query = sides
    head = PrototypeHead(score="threshold")
    assert head.threshold.item() == 10
    head.threshold.data.fill_(7.0)
    probability = head(support, to_tokens(masks, like=support), query).sigmoid()
    for episode in range(2):
        prototype = average_slowly(support[episode], masks[episode])
        for row in range(3):
            for column in range(4):
                score = 20 * cosine(query[episode, :, row, column], prototype)
                expected = 1 / (1 + math.exp(-0.5 * (score - 7.0)))
                got = probability[episode, row, column].item()
                assert got == pytest.approx(expected, abs=1e-5)


def test_the_softmax_head_is_the_two_way_softmax_of_panet(sides):
    support, masks, query = sides
    head = PrototypeHead(score="softmax")
    assert not list(head.parameters())
    probability = head(support, to_tokens(masks, like=support), query).sigmoid()
    for episode in range(2):
        foreground = average_slowly(support[episode], masks[episode])
        background = average_slowly(support[episode], 1 - masks[episode])
        for row in range(3):
            for column in range(4):
                here = query[episode, :, row, column]
                scores = [20 * cosine(here, background), 20 * cosine(here, foreground)]
                expected = torch.tensor(scores).softmax(dim=0)[1].item()
                got = probability[episode, row, column].item()
                assert got == pytest.approx(expected, abs=1e-5)


def test_cosine_is_one_with_itself_whatever_the_length_and_in_half_precision_too(sides):
    _, _, query = sides
    for dtype in (torch.float64, torch.bfloat16):
        same = cosine_map(1000 * query.to(dtype), 0.01 * query[:, :, 1, 2].to(dtype))
        assert same[:, 1, 2].tolist() == pytest.approx([1.0, 1.0], abs=1e-4)
        assert same.abs().max() <= 1.0001


@both
def test_alignment_segments_each_shot_with_the_prototype_of_its_own_query(score, sides):
    support, _, query = sides
    head = PrototypeHead(score=score)
    share = (query[:, 0] > 0.2).double()
    got = from_query(head, support, query=query, share=share)
    for episode in range(2):
        for shot in range(3):
            expected = head(
                query[episode, None, None],
                share[episode, None, None],
                support[episode, shot, None],
            )
            torch.testing.assert_close(got[episode, shot], expected[0])


@both
@pytest.mark.parametrize("cover", [0.0, 1.0])
def test_an_empty_and_a_full_mask_give_finite_logits_and_gradients(score, cover, sides):
    support, masks, query = (part.float().requires_grad_() for part in sides)
    share = torch.full_like(to_tokens(masks, like=support), cover)
    head = PrototypeHead(score=score)
    logits = head(support, share, query)
    assert logits.isfinite().all()
    for gradient in torch.autograd.grad(logits.square().sum(), [support, query]):
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e3
