import math
from dataclasses import replace

import pytest
import torch
from einops import rearrange
from torch import nn

from catnet.model.attention import build_attention
from catnet.model.cmat import CrossAttention, Round, SelfAttention, Streams

DIM = 16
GATHERED = {("queries", "multiply"), ("queries", "bias"), ("keys", "bias")}  # sums round otherwise
placements = pytest.mark.parametrize("mask_on", ["queries", "keys"])
hows = pytest.mark.parametrize("mask_how", ["multiply", "bias"])
directions = pytest.mark.parametrize("direction", ["both", "support_to_query", "query_to_support"])


def scatter(module):
    """No two weights of a module alike, and none at its special starting value."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3, generator=generator)
    return module.double()


def make_self(name="masked"):
    attention = build_attention(name, DIM, {})
    return SelfAttention(dim=DIM, attention=attention, ffn="mlp", mlp_ratio=1.5)


def make_cross(*, mask_on, mask_how):
    cross = CrossAttention(
        dim=DIM,
        attention=build_attention("masked", DIM, {}),
        ffn="mlp",
        mlp_ratio=1.5,
        mask_on=mask_on,
        mask_how=mask_how,
    )
    return scatter(cross)


def make_round(*, direction="both", mask_on="queries", mask_how="multiply", share_streams=True):
    cross = make_cross(mask_on=mask_on, mask_how=mask_how)
    self_query = None if share_streams else make_self()
    return scatter(
        Round(self_support=make_self(), self_query=self_query, cross=cross, direction=direction)
    )


@pytest.fixture
def streams():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    support_kept, query_kept = (normal(2, 3, 2, 4) > 0).double(), (normal(2, 2, 4) > 0).double()
    support_kept[1, 0] = 0
    return Streams(normal(2, 3, DIM, 2, 4), support_kept, normal(2, DIM, 2, 4), query_kept)


def layer_norm(norm, x):
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def mlp(ffn, x):
    hidden = ffn.expand.weight[:, :, 0, 0] @ x + ffn.expand.bias
    hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
    return ffn.reduce.weight[:, :, 0, 0] @ hidden + ffn.reduce.bias


def mask_matrix(kept, context_kept, mask_on):
    """(n, m): may position i of the receiving stream look at position j of the other one?"""
    rows = torch.zeros(len(kept), len(context_kept), dtype=torch.float64)
    for i in range(len(kept)):
        for j in range(len(context_kept)):
            rows[i, j] = {"queries": kept[i], "keys": context_kept[j], "none": 1.0}[mask_on]
    return rows


def attend(attention, x, context, mask, mask_how):
    """x (n, c), context (m, c), mask (n, m); a row that the mask empties receives nothing."""
    query = x @ attention.query.weight.T + attention.query.bias
    both = context @ attention.key_value.weight.T + attention.key_value.bias
    size = DIM // attention.heads
    heads = []
    for head in range(attention.heads):
        span = slice(head * size, (head + 1) * size)
        scores = query[:, span] @ both[:, :DIM][:, span].T / math.sqrt(size)
        if mask_how == "bias":
            weights = (scores + mask.log()).softmax(dim=1).nan_to_num(0.0)
        else:
            weights = scores.softmax(dim=1) * mask
        heads.append(weights @ both[:, DIM:][:, span])
    received = torch.cat(heads, dim=1) @ attention.project.weight.T + attention.project.bias
    return [row if some else 0 * row for row, some in zip(received, mask.any(dim=1), strict=True)]


def cross_slowly(cross, x, context, *, kept, context_kept):
    """One episode: x (n, c), context (m, c), masks (n) and (m)."""
    mask = mask_matrix(kept, context_kept, cross.mask_on)
    if not mask.any():
        return x
    received = attend(cross.attention, x, context, mask, cross.mask_how)
    changed = [layer_norm(cross.attended_norm, a + b) for a, b in zip(x, received, strict=True)]
    return torch.stack([layer_norm(cross.norm, row + mlp(cross.ffn, row)) for row in changed])


def self_slowly(module, x):
    """One stream of one episode, (n, c)."""
    everywhere = torch.ones(len(x), len(x), dtype=torch.float64)
    received = attend(module.attention, x, x, everywhere, "multiply")
    rows = [mlp(module.ffn, row) + old for row, old in zip(received, x, strict=True)]
    return torch.stack([layer_norm(module.norm, row) for row in rows])


def tokens(x):
    return rearrange(x, "c h w -> (h w) c")


def round_slowly(module, streams, episode):
    """Support features (s, n, c) and query feature (n, c) of one episode after one round."""
    support_kept = streams.support_kept[episode].flatten(1)
    query_kept = streams.query_kept[episode].flatten()
    supports = [self_slowly(module.self_support, tokens(x)) for x in streams.support[episode]]
    query = self_slowly(module.self_query or module.self_support, tokens(streams.query[episode]))
    new_supports, new_query = supports, query
    if module.direction in {"both", "query_to_support"}:
        new_supports = [
            cross_slowly(module.cross, x, query, kept=kept, context_kept=query_kept)
            for x, kept in zip(supports, support_kept, strict=True)
        ]
    if module.direction in {"both", "support_to_query"}:
        everything, all_kept = torch.cat(supports), support_kept.flatten()
        new_query = cross_slowly(
            module.cross, query, everything, kept=query_kept, context_kept=all_kept
        )
    return torch.stack(new_supports), new_query


@directions
@hows
@pytest.mark.parametrize("mask_on", ["queries", "keys", "none"])
@pytest.mark.parametrize("share_streams", [True, False])
@torch.no_grad()
def test_a_round_equals_its_equations(direction, mask_how, mask_on, share_streams, streams):
    module = make_round(
        direction=direction, mask_on=mask_on, mask_how=mask_how, share_streams=share_streams
    )
    support, query, maps = module(streams)
    assert maps == (None, None)
    for episode in range(2):
        expected_support, expected_query = round_slowly(module, streams, episode)
        got = rearrange(support[episode], "s c h w -> s (h w) c")
        torch.testing.assert_close(got, expected_support)
        torch.testing.assert_close(tokens(query[episode]), expected_query)


@placements
@hows
@pytest.mark.parametrize("empty", ["support_kept", "query_kept"])
def test_an_empty_mask_leaves_the_stream_untouched(mask_on, mask_how, empty, streams):
    module = make_round(mask_on=mask_on, mask_how=mask_how)
    mask = getattr(streams, empty).clone()
    mask[0] = 0
    streams = replace(streams, support=streams.support.requires_grad_(), **{empty: mask})
    support, query, _ = module(streams)
    untouched = {
        "query": torch.equal(query[0], module.self_support(streams.query, None)[0][0]),
        "support": torch.equal(support[0], module.self_support(streams.support[0], None)[0]),
    }
    receives = "query" if (mask_on == "queries") == (empty == "query_kept") else "support"
    assert untouched == {"query": receives == "query", "support": receives == "support"}
    (support.square().mean() + query.square().mean()).backward()
    assert streams.support.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@placements
@hows
def test_an_episode_with_empty_masks_does_not_trouble_its_neighbor(mask_on, mask_how, streams):
    module = make_round(mask_on=mask_on, mask_how=mask_how)
    expected = module(streams)[:2]
    streams.support_kept[0], streams.query_kept[0] = 0, 0
    for got, before in zip(module(streams)[:2], expected, strict=True):
        if (mask_on, mask_how) in GATHERED:  # as many tokens as the fullest episode keeps
            torch.testing.assert_close(got[1], before[1], rtol=1e-12, atol=1e-12)
        else:
            assert torch.equal(got[1], before[1])
        assert not torch.allclose(got[0], before[0])


def test_on_queries_multiplication_and_bias_are_the_same(streams):
    by_multiplication = make_round(mask_on="queries", mask_how="multiply")(streams)[:2]
    by_bias = make_round(mask_on="queries", mask_how="bias")(streams)[:2]
    for one, other in zip(by_multiplication, by_bias, strict=True):
        assert torch.equal(one, other)


def test_on_queries_only_the_kept_positions_receive(streams):
    cross = make_cross(mask_on="queries", mask_how="multiply")
    x, context, kept = streams.query, streams.support[:, 0], streams.query_kept
    masks = {"kept": kept, "context_kept": streams.support_kept[:, 0]}
    difference = (cross(x, context, **masks) - cross(x, context + 1, **masks)).abs().amax(dim=1)
    assert (difference > 1e-6).double().equal(kept)


@placements
@directions
def test_a_closed_direction_lets_nothing_through(mask_on, direction, streams):
    module = make_round(direction=direction, mask_on=mask_on)
    support, query, _ = module(streams)
    _, other_query, _ = module(replace(streams, support=streams.support.flip(-1)))
    other_support, _, _ = module(replace(streams, query=streams.query.flip(-1)))
    assert torch.equal(support, other_support) == (direction == "support_to_query")
    assert torch.equal(query, other_query) == (direction == "query_to_support")


def test_shared_streams_use_one_self_attention_and_others_two():
    shared, separate = make_round(share_streams=True), make_round(share_streams=False)
    one = sum(p.numel() for p in make_self().parameters())
    sizes = [sum(p.numel() for p in module.parameters()) for module in (shared, separate)]
    assert sizes[1] - sizes[0] == one


def test_the_order_of_the_shots_is_the_order_of_the_supports_and_nothing_else(streams):
    module = make_round(mask_on="keys")
    support, query, _ = module(streams)
    turned = replace(
        streams, support=streams.support.flip(1), support_kept=streams.support_kept.flip(1)
    )
    turned_support, turned_query, _ = module(turned)
    torch.testing.assert_close(turned_support, support.flip(1))
    torch.testing.assert_close(turned_query, query)


def test_without_a_mechanism_the_self_place_is_an_mlp_and_a_norm(generator):
    x = torch.randn(2, DIM, 2, 4, generator=generator, dtype=torch.float64)
    module = scatter(make_self("none"))
    for episode in range(2):
        for row, got in zip(tokens(x[episode]), tokens(module(x, None)[0][episode]), strict=True):
            torch.testing.assert_close(got, layer_norm(module.norm, mlp(module.ffn, row) + row))
