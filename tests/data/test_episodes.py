from collections import Counter
from dataclasses import fields

import numpy as np
import pytest
import torch

from catnet.config import DataSettings
from catnet.data.episodes import open_source, runs_of
from catnet.errors import UserError

MIN_PIXELS = 200
DEPTH = 12


def draw_supervoxels(case):
    """1 is large everywhere, 2 on slice 4 alone, 3 shows on one slice, 4 has a gap."""
    labels = np.zeros((DEPTH, 32, 32), dtype=np.int64)
    labels[0:6, :16] = 1
    labels[:, 16:, :10] = 2
    labels[4, 16:, :20] = 2
    labels[7, :16, 16:] = 3
    if case > 1:
        labels[8:10, :16] = labels[11, :16] = 4
    return labels


def draw_organs():
    labels = np.zeros((DEPTH, 32, 32), dtype=np.uint16)
    labels[2:7, :16, 16:] = 1
    labels[5:10, 16:, 10:] = 4
    labels[10, 16:, 30:] = 4  # too small
    return labels


@pytest.fixture
def card(make_card):
    return make_card()


@pytest.fixture
def cases(card, make_case):
    return tuple(
        make_case(card, str(k), draw_organs(), supervoxels=draw_supervoxels(k)) for k in (1, 2, 3)
    )


@pytest.fixture
def source(card, cases):
    def open_with(seed=0, **settings):
        return open_source(card, cases, DataSettings(**settings), seed=seed)

    return open_with


def draws(source, count):
    return [source.sampler(source.generator(number)) for number in range(count)]


def episodes(source, *numbers):
    return source.batch([source.generator(number) for number in numbers])


def same(one, other):
    return all(torch.equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))


def places(slices):
    """(case, slice) of every image, from its gray value."""
    codes = slices.amax(dim=(-1, -2)).flatten().long().tolist()
    return [(code // 100, code % 100) for code in codes]


EVERY_KIND = [{}, {"shots": 3}, {"setting": "2", "group": "right"}]
EVERY_KIND += [{"labels": "organs", "group": "left", "shots": 2}]
every_kind = pytest.mark.parametrize("settings", EVERY_KIND, ids=str)


@every_kind
def test_an_episode_is_a_function_of_seed_and_number(source, settings):
    one, other = source(**settings), source(**settings)
    forward = [episodes(one, number) for number in range(8)]
    backward = [episodes(other, number) for number in reversed(range(8))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert len(set(draws(one, 40))) > 8
    assert draws(one, 40) != draws(source(seed=1, **settings), 40)


@every_kind
def test_a_batch_is_its_episodes_one_at_a_time(source, settings):
    found = source(**settings)
    batch = episodes(found, 5, 0, 9, 5)
    assert len(batch) == 4
    for place, number in enumerate((5, 0, 9, 5)):
        assert same(batch[place : place + 1], episodes(found, number))


@every_kind
def test_the_global_random_state_is_neither_read_nor_written(source, settings):
    found = source(**settings)
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    first = episodes(found, 3)
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.random.get_rng_state(), before[1])
    np.random.seed(99)
    torch.manual_seed(99)
    assert same(first, episodes(found, 3))


@pytest.mark.parametrize("shots", [1, 2, 4])
def test_supervoxel_episodes_are_runs_of_neighboring_slices(source, cases, shots):
    found = source(shots=shots)
    for number, draw in enumerate(draws(found, 120)):
        episode = episodes(found, number)
        support, [query] = places(episode.support), places(episode.query)
        assert episode.support.shape == (1, shots, 1, 32, 32)
        assert len(support) == shots
        assert len({case for case, _ in [*support, query]}) == 1
        slices = [z for _, z in [*support, query]]
        steps = set(np.diff(slices).tolist())
        assert steps in ({1}, {-1})
        labels = cases[query[0] - 1].supervoxels
        masks = [labels[z] == draw.label for z in slices]
        np.testing.assert_array_equal(episode.support_mask[0], np.stack(masks[:-1]))
        np.testing.assert_array_equal(episode.query_mask[0], masks[-1])
        pixels = [int(mask.sum()) for mask in masks]
        assert min(pixels) > 0
        assert max(pixels) >= MIN_PIXELS


def test_every_run_that_may_be_drawn_is_drawn(source):
    found = {
        (draw.query.case, draw.label, min(draw.query.slice, draw.support[0].slice))
        for draw in draws(source(), 1500)
    }
    everywhere = {(1, z) for z in range(5)} | {(2, 3), (2, 4)}
    expected = {(case, *run) for case in range(3) for run in everywhere}
    assert found == expected | {(case, 4, 8) for case in (1, 2)}


def test_the_query_is_on_either_side(source):
    down = [draw.query.slice < draw.support[0].slice for draw in draws(source(), 600)]
    assert 0.44 < np.mean(down) < 0.56


def test_cases_and_their_labels_are_drawn_evenly(source):
    found = draws(source(), 1500)
    by_case = Counter(draw.query.case for draw in found)
    assert all(400 < by_case[case] < 600 for case in range(3))
    for case, labels in {0: 2, 1: 3, 2: 3}.items():
        by_label = Counter(draw.label for draw in found if draw.query.case == case)
        assert len(by_label) == labels
        expected = by_case[case] / labels
        assert all(0.75 * expected < count < 1.25 * expected for count in by_label.values())


@pytest.mark.parametrize(
    ("setting", "group", "removed"),
    [
        ("2", "right", {2, 3, 4, 5, 6}),
        ("2", "left", {5, 6, 7, 8, 9, 10}),
        ("2", None, set(range(2, 11))),
        ("2-as-published", None, {5, 6}),
    ],
)
def test_slices_with_tested_organs_never_train(source, setting, group, removed):
    found = draws(source(setting=setting, group=group), 300)
    seen = {place.slice for draw in found for place in (*draw.support, draw.query)}
    assert seen
    assert not seen & removed
    every = draws(source(), 300)
    assert removed & {place.slice for draw in every for place in (*draw.support, draw.query)}


@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize(("group", "label", "shown"), [("left", 1, (2, 7)), ("right", 4, (5, 10))])
def test_organ_episodes_show_a_base_organ_of_other_cases(source, cases, shots, group, label, shown):
    found = source(labels="organs", group=group, shots=shots)
    for number in range(60):
        episode = episodes(found, number)
        support, [query] = places(episode.support), places(episode.query)
        assert len(support) == shots
        assert query[0] not in {case for case, _ in support}
        assert len({case for case, _ in support}) == min(shots, 2)
        masks = [cases[case - 1].label[z] == label for case, z in [*support, query]]
        np.testing.assert_array_equal(episode.support_mask[0], np.stack(masks[:-1]))
        np.testing.assert_array_equal(episode.query_mask[0], masks[-1])
        assert all(shown[0] <= z < shown[1] for _, z in [*support, query])


def test_organ_episodes_are_even_over_cases_slices_and_organs(card, make_card, make_case):
    card = make_card(
        organs={"liver": 1, "spleen": 4, "aorta": 5}, groups={"one": ["aorta"]}, other_labels=[]
    )
    cases = tuple(make_case(card, str(k), draw_organs()) for k in (1, 2, 3, 4))
    source = open_source(card, cases, DataSettings(labels="organs", group="one"), seed=0)
    found = draws(source, 1200)
    assert 500 < Counter(draw.label for draw in found)[1] < 700
    for side in ([draw.query for draw in found], [draw.support[0] for draw in found]):
        assert all(225 < count < 375 for count in Counter(p.case for p in side).values())
    slices = Counter(draw.query.slice for draw in found if draw.label == 1)
    assert sorted(slices) == [2, 3, 4, 5, 6]
    assert min(slices.values()) > 80


def test_organ_episodes_of_setting_2_avoid_the_tested_organ(source):
    found = draws(source(labels="organs", group="left", setting="2"), 100)
    assert {place.slice for draw in found for place in (*draw.support, draw.query)} == {2, 3, 4}


def test_arrays_are_what_the_network_expects(source):
    episode = episodes(source(shots=2), 0, 1, 2)
    shapes = {field.name: tuple(getattr(episode, field.name).shape) for field in fields(episode)}
    assert shapes == {
        "support": (3, 2, 1, 32, 32),
        "support_mask": (3, 2, 32, 32),
        "query": (3, 1, 32, 32),
        "query_mask": (3, 32, 32),
    }
    assert {getattr(episode, field.name).dtype for field in fields(episode)} == {torch.float32}
    assert set(episode.support_mask.unique().tolist()) == {0.0, 1.0}


def test_seeds_and_numbers_do_not_collide(source):
    firsts = {
        source(seed=seed).generator(number).integers(2**62)
        for seed in range(20)
        for number in range(20)
    }
    assert len(firsts) == 400


def test_what_makes_no_episode_is_said(source, card, cases, make_case):
    with pytest.raises(UserError, match=r"spans 2 allowed slices with 2000 pixels.*min_pixels"):
        source(min_pixels=2000)
    with pytest.raises(UserError, match=r"3 training cases spans 14 allowed .* data\.shots"):
        source(shots=13)
    with pytest.raises(UserError, match=r"no organ outside group left .* two training cases"):
        source(labels="organs", group="left", min_pixels=2000)
    settings = DataSettings(labels="organs", group="left")
    with pytest.raises(UserError, match="no organ outside group left"):
        open_source(card, cases[:1], settings, seed=0)
    with pytest.raises(UserError, match=r"data\.group 'up' is not in card tiny"):
        source(group="up")
    bare = make_case(card, "9", draw_organs())
    with pytest.raises(UserError, match="9: has no supervoxels; run `catnet supervoxels tiny`"):
        open_source(card, (*cases, bare), DataSettings(), seed=0)


def test_runs_by_hand():
    pixels = np.array([[9, 5, 0], [9, 1, 7], [9, 1, 7], [9, 0, 0], [9, 6, 0]])
    runs = {label: list(found) for label, found in runs_of(pixels, length=2, min_pixels=5).items()}
    assert runs == {0: [0, 1, 2, 3], 1: [0], 2: [1]}
    longer = runs_of(pixels, length=3, min_pixels=5)
    assert {label: list(found) for label, found in longer.items()} == {0: [0, 1, 2], 1: [0]}
    assert runs_of(pixels, length=6, min_pixels=1) == {}
