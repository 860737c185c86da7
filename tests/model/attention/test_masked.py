import math

import pytest
import torch
from einops import rearrange

from catnet.errors import UserError
from catnet.model.attention.masked import MaskedAttention

DIM = 12
hows = pytest.mark.parametrize("how", ["multiply", "bias"])


@pytest.fixture
def attention(generator):
    module = MaskedAttention(DIM, heads=3).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4, generator=generator)
    return module


@pytest.fixture
def maps(generator):
    x = torch.randn(2, DIM, 3, 5, generator=generator, dtype=torch.float64)
    context = torch.randn(2, DIM, 4, 2, generator=generator, dtype=torch.float64)
    return x, context


def mask(kind):
    keep = torch.ones(2, 4, 2, dtype=torch.float64)
    if kind == "some":
        keep[0, :2] = 0
        keep[1, 1:, 0] = 0
    if kind == "empty beside some":
        keep[0] = 0
        keep[1, 0] = 0
    return keep


def weights_of(scores, keep, how):
    if how == "bias":
        terms = [math.exp(s) if k else 0.0 for s, k in zip(scores, keep, strict=True)]
        return [term / (sum(terms) or 1.0) for term in terms]
    terms = [math.exp(s) for s in scores]
    return [k * term / sum(terms) for term, k in zip(terms, keep, strict=True)]


def slowly(attention, x, context, keep, how):
    """One episode, (c, h, w) and (c, i, j): head by head, row by row, as the equations stand."""
    height, width = x.shape[-2:]
    keep = keep.flatten().tolist()
    query_rows = [attention.query.weight @ t + attention.query.bias for t in x.flatten(1).T]
    both = [attention.key_value.weight @ t for t in context.flatten(1).T]
    both = [pair + attention.key_value.bias for pair in both]
    size = DIM // attention.heads
    rows = []
    for query in query_rows:
        parts = []
        for head in range(attention.heads):
            span = slice(head * size, (head + 1) * size)
            keys, values = [p[:DIM][span] for p in both], [p[DIM:][span] for p in both]
            scores = [(query[span] @ key).item() / math.sqrt(size) for key in keys]
            weights = weights_of(scores, keep, how)
            parts.append(sum(w * value for w, value in zip(weights, values, strict=True)))
        rows.append(attention.project.weight @ torch.cat(parts) + attention.project.bias)
    return rearrange(torch.stack(rows), "(h w) c -> c h w", h=height, w=width)


@hows
@pytest.mark.parametrize("kind", ["full", "some", "empty beside some"])
def test_it_equals_the_equations_written_slowly(how, kind, attention, maps):
    x, context = maps
    keep = mask(kind)
    got = attention(x, context, keep=keep, how=how)
    for episode in range(2):
        expected = slowly(attention, x[episode], context[episode], keep[episode], how)
        torch.testing.assert_close(got[episode], expected)


def test_without_a_mask_everything_is_kept(attention, maps):
    x, context = maps
    for episode in range(2):
        expected = slowly(attention, x[episode], context[episode], torch.ones(4, 2), "multiply")
        torch.testing.assert_close(attention(x, context)[episode], expected)


def test_without_a_context_it_attends_to_itself(attention, maps):
    x, _ = maps
    assert torch.equal(attention(x), attention(x, x))


def test_bias_equals_plain_attention_over_the_kept_positions_alone(attention, maps):
    x, context = maps
    keep = torch.zeros(2, 4, 2, dtype=torch.float64)
    keep[:, 1:3] = 1
    expected = attention(x, context[:, :, 1:3])
    torch.testing.assert_close(attention(x, context, keep=keep, how="bias"), expected)


def test_a_dropped_position_is_unseen_by_bias_but_takes_its_share_by_multiply(attention, maps):
    x, context = maps
    keep = mask("some")
    other = context + (1 - keep).unsqueeze(1)
    seen = {
        how: not torch.allclose(
            attention(x, context, keep=keep, how=how), attention(x, other, keep=keep, how=how)
        )
        for how in ("multiply", "bias")
    }
    assert seen == {"multiply": True, "bias": False}


@hows
def test_with_nothing_kept_the_attended_value_is_zero_and_so_is_its_gradient(how, attention, maps):
    x, context = (part.requires_grad_() for part in maps)
    got = attention(x, context, keep=torch.zeros(2, 4, 2, dtype=torch.float64), how=how)
    torch.testing.assert_close(got, rearrange(attention.project.bias, "c -> 1 c 1 1").expand_as(x))
    inner = [x, context, attention.query.weight, attention.key_value.weight]
    for gradient in torch.autograd.grad(got.square().sum(), inner):
        assert torch.equal(gradient, torch.zeros_like(gradient))


@hows
def test_an_episode_that_keeps_nothing_does_not_trouble_its_neighbor(how, attention, maps):
    x, context = maps
    keep = mask("empty beside some")
    got = attention(x, context, keep=keep, how=how)[1:]
    torch.testing.assert_close(got, attention(x[1:], context[1:], keep=keep[1:], how=how))


@hows
def test_gradient_reaches_every_parameter(how, attention, maps):
    attention(*maps, keep=mask("some"), how=how).square().sum().backward()
    for name, parameter in attention.named_parameters():
        assert parameter.grad.abs().max() > 1e-6, name


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(UserError, match=r"heads=8 does not divide dim=12"):
        MaskedAttention(12)
