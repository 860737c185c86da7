from dataclasses import fields, replace
from itertools import pairwise

import pytest
import torch
from torch.nn import functional as F

from catnet.episode import Episode
from catnet.model.encoder import Encoded

close = {"rtol": 1e-4, "atol": 1e-4}
mask_ons = pytest.mark.parametrize("mask_on", ["queries", "keys", "none"])
mask_hows = pytest.mark.parametrize("mask_how", ["multiply", "bias"])
directions = pytest.mark.parametrize("direction", ["both", "support_to_query", "query_to_support"])
scores = pytest.mark.parametrize("score", ["threshold", "softmax"])


@directions
@scores
@pytest.mark.parametrize("rounds", [0, 1, 3])
@pytest.mark.parametrize("field", ["support", "support_mask", "query"])
def test_every_input_changes_every_mask(direction, score, rounds, field, network, episodes):
    model = network(direction=direction, score=score, rounds=rounds)
    one = episodes()
    other = replace(one, **{field: getattr(episodes(seed=1), field)})
    for before, after in zip(model(one).logits, model(other).logits, strict=True):
        assert ((before - after).abs().amax(dim=(1, 2)) > 1e-3).all()


def test_the_answer_is_never_read(network, episodes):
    model, one = network(), episodes()
    other = replace(one, query_mask=1 - one.query_mask)
    assert torch.equal(model(one).probability, model(other).probability)


def assert_same(one, other):
    """Two predictions agree: all masks and the features of both streams."""
    for ours, theirs in zip(one.logits, other.logits, strict=True):
        torch.testing.assert_close(ours, theirs, **close)
        assert 0 < (ours.sigmoid() > 0.4).sum() < ours.numel()  # else no mask has been at work
    torch.testing.assert_close(one.support, other.support, **close)
    torch.testing.assert_close(one.query, other.query, **close)


@mask_ons
@scores
@torch.no_grad()
def test_a_batch_equals_its_episodes_one_at_a_time(mask_on, score, network, episodes):
    model, batch = network(mask_on=mask_on, score=score), episodes(batch=3, shots=2)
    together = model(batch)
    for i in range(3):
        at = slice(i, i + 1)
        picked = replace(
            together,
            logits=tuple(logits[at] for logits in together.logits),
            support=together.support[at],
            query=together.query[at],
        )
        assert_same(model(batch[at]), picked)


@mask_ons
@torch.no_grad()
def test_swapping_two_episodes_swaps_the_outputs(mask_on, network, episodes):
    model, batch = network(mask_on=mask_on), episodes()
    swapped = Episode(*(getattr(batch, field.name).flip(0) for field in fields(Episode)))
    got, expected = model(swapped).probability, model(batch).probability.flip(0)
    torch.testing.assert_close(got, expected, **close)
    assert not torch.allclose(expected[0], expected[1], atol=0.01)


@mask_ons
@mask_hows
@directions
@scores
@torch.no_grad()
def test_the_same_shot_three_times_says_what_it_says_once(
    mask_on, mask_how, direction, score, headless, episodes
):
    """Prototypes are means, and a softmax over keys given thrice is that over keys given once."""
    model = headless(mask_on=mask_on, mask_how=mask_how, direction=direction, score=score)
    once = episodes()
    thrice = replace(
        once,
        support=once.support.repeat(1, 3, 1, 1, 1),
        support_mask=once.support_mask.repeat(1, 3, 1, 1),
    )
    one, three = model(once), model(thrice)
    assert_same(one, replace(three, support=three.support[:, 1:2]))
    assert not torch.allclose(one.probability, model(episodes(shots=3)).probability, atol=0.01)


@scores
@torch.no_grad()
def test_without_rounds_mife_and_the_head_alone_remain(score, network, episodes):
    model, one = network(rounds=0, score=score), episodes(shots=2)
    encoded = [model.encoder(one.support[:, shot]) for shot in range(2)]
    support = Encoded(
        torch.stack([shot.feature for shot in encoded], dim=1),
        torch.stack([shot.deep for shot in encoded], dim=1),
    )
    share = F.avg_pool2d(one.support_mask, 8)
    support_feature, query_feature, first = model.mife(support, share, model.encoder(one.query))
    got = model(one)
    torch.testing.assert_close(got.logits[0], first, **close)
    last = model.head(support_feature, share, query_feature)
    torch.testing.assert_close(got.logits[1], last, **close)
    assert len(got.logits) == 2
    assert not list(model.cmat.parameters())


def record(model):
    """What every round is given and what it leaves, filled in as the network runs."""
    seen = []
    for cmat in model.cmat:
        cmat.register_forward_hook(lambda _, given, left: seen.append((given[0], left)))
    return seen


@pytest.mark.parametrize("share_rounds", [False, True])
@torch.no_grad()
def test_each_round_works_on_what_the_round_before_left(share_rounds, network, episodes):
    model, one = network(rounds=3, share_rounds=share_rounds, keep_threshold=0.4), episodes(shots=2)
    seen = record(model)
    prediction = model(one)
    share = F.avg_pool2d(one.support_mask, 8)
    assert len(seen) == 3
    for number, (given, left) in enumerate(seen):
        kept = prediction.logits[number].sigmoid() > 0.4
        assert 0 < kept.sum() < kept.numel()
        assert torch.equal(given.query_kept, kept.float())
        assert torch.equal(given.support_kept, (share > 0).float())
        expected = model.head(left[0], share, left[1])
        torch.testing.assert_close(prediction.logits[number + 1], expected, **close)
    for (_, left), (given, _) in pairwise(seen):
        assert torch.equal(given.support, left[0])
        assert torch.equal(given.query, left[1])
    assert torch.equal(prediction.query, seen[-1][1][1])


@pytest.mark.parametrize("position", ["none", "sine"])
@torch.no_grad()
def test_the_position_is_added_once_before_the_first_round(position, network, episodes):
    model, one = network(rounds=2, position=position), episodes()
    seen = record(model)
    model(one)
    model.settings = model.settings.model_copy(update={"rounds": 0})
    before = model(one)
    given = seen[0][0]
    torch.testing.assert_close(given.query, model.position(before.query), **close)
    expected = model.position(before.support[:, 0])
    torch.testing.assert_close(given.support[:, 0], expected, **close)
    assert torch.allclose(given.query, before.query) == (position == "none")


@mask_ons
@torch.no_grad()
def test_the_mask_of_a_round_decides_the_next(mask_on, headless, episodes):
    wide, narrow = (headless(mask_on=mask_on, keep_threshold=value) for value in (0.3, 0.7))
    one = episodes()
    before, after = wide(one), narrow(one)
    assert torch.equal(before.logits[0], after.logits[0])
    for number in (1, 2):
        changed = not torch.allclose(before.logits[number], after.logits[number], atol=1e-3)
        assert changed == (mask_on != "none")


@torch.no_grad()
def test_shared_rounds_equal_separate_rounds_of_the_same_weights(headless, episodes):
    shared, separate = headless(rounds=3, share_rounds=True), headless(rounds=3)
    one = episodes()
    count = [sum(p.numel() for p in model.cmat.parameters()) for model in (shared, separate)]
    assert 3 * count[0] == count[1]
    separate.load_state_dict(shared.state_dict(), strict=False)
    assert not torch.allclose(separate(one).probability, shared(one).probability, atol=1e-3)
    for cmat in separate.cmat:
        cmat.load_state_dict(shared.cmat[0].state_dict())
    assert torch.equal(separate(one).probability, shared(one).probability)


@directions
@torch.no_grad()
def test_the_support_learns_of_the_query_only_where_it_may(direction, headless, episodes):
    model, one = headless(direction=direction), episodes()
    other = replace(one, query=episodes(seed=1).query)
    before, after = model(one).support, model(other).support
    assert torch.allclose(before, after, atol=1e-5) == (direction == "support_to_query")


@pytest.mark.parametrize("counts", [[4], [3, 1]])
@pytest.mark.parametrize(
    "settings",
    [{}, {"rounds": 0}, {"attention": "refiner"}, {"direction": "support_to_query"}],
    ids=str,
)
@torch.no_grad()
def test_a_support_encoded_once_serves_many_queries(network, episodes, settings, counts):
    model, batch = network(**settings).double(), episodes(batch=4, shots=2)
    batch = Episode(*(part.double() for part in vars(batch).values()))
    some = len(counts)
    shots = model.encode(batch.support[:some].flatten(0, 1))
    support = Encoded(*(part.unflatten(0, (some, 2)) for part in (shots.feature, shots.deep)))
    got = model.segment(support, batch.support_mask[:some], model.encode(batch.query), counts)
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    repeated = replace(batch, support=batch.support[rows], support_mask=batch.support_mask[rows])
    expected = model(repeated)
    exactly = {"rtol": 0, "atol": 1e-10}  # far below what a row of another support would change
    torch.testing.assert_close(got.logits, expected.logits, **exactly)
    torch.testing.assert_close(got.support, expected.support, **exactly)


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (32, 160)])
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_a_probability_has_the_size_of_the_slice_and_comes_from_the_last_round(
    size, output_stride, network, episodes
):
    height, width = size
    prediction = network(output_stride=output_stride)(episodes(height=height, width=width))
    for logits, probability in zip(prediction.logits, prediction.rounds, strict=True):
        assert logits.shape == (2, height // output_stride, width // output_stride)
        enlarged = F.interpolate(logits[:, None], size, mode="bilinear")[:, 0]
        torch.testing.assert_close(probability, enlarged.sigmoid())
    assert torch.equal(prediction.probability, prediction.rounds[-1])
