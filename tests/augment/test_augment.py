from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from catnet.augment import NEITHER, QUERY, SUPPORT, Recipe, augment, draw
from catnet.episode import Episode

USUAL = Recipe(
    probability=1.0,
    gamma=(0.5, 1.5),
    rotation=5.0,
    shift=5.0,
    shear=5.0,
    scale=(0.9, 1.2),
    alpha=10.0,
    sigma=5.0,
)
IDENTITY = Recipe(
    probability=1.0,
    gamma=(1.0, 1.0),
    rotation=0.0,
    shift=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    alpha=0.0,
    sigma=5.0,
)
HEIGHT, WIDTH = 96, 64


def episode_of(*, batch=6, shots=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    support = torch.randn(batch, shots, 1, HEIGHT, WIDTH, generator=generator)
    query = torch.randn(batch, 1, HEIGHT, WIDTH, generator=generator)
    return Episode(support, (support[:, :, 0] > 0.3).float(), query, (query[:, 0] > 0.3).float())


def draw_for(recipe, *, count, seed=0):
    rngs = [np.random.default_rng([seed, index]) for index in range(count)]
    return draw(recipe, rngs, height=HEIGHT, width=WIDTH)


def differing(one, other):
    names = (field.name for field in fields(Episode))
    return {name for name in names if not torch.equal(getattr(one, name), getattr(other, name))}


def test_an_identity_recipe_leaves_the_episode_bit_equal():
    episode = episode_of()
    assert differing(augment(episode, draw_for(IDENTITY, count=6)), episode) == set()


def test_a_probability_of_zero_leaves_the_episode_bit_equal():
    episode = episode_of()
    params = draw_for(replace(USUAL, probability=0.0), count=6)
    assert differing(augment(episode, params), episode) == set()


def test_an_episode_that_stays_is_bit_equal_beside_one_that_moves():
    episode = episode_of(batch=2)
    params = draw_for(replace(IDENTITY, shift=5.0), count=2)
    params = replace(params, shift=params.shift * torch.tensor([[0.0], [1.0]]))
    got = augment(episode, params)
    assert differing(got[:1], episode[:1]) == set()
    assert differing(got[1:], episode[1:]) != set()


@pytest.mark.parametrize("shots", [1, 3])
def test_only_the_chosen_side_changes(shots):
    episode = episode_of(shots=shots, batch=8)
    params = draw_for(replace(USUAL, probability=0.7), count=8)
    got = augment(episode, params)
    changed = {
        NEITHER: set(),
        SUPPORT: {"support", "support_mask"},
        QUERY: {"query", "query_mask"},
    }
    assert set(params.side) == set(changed)
    for index, side in enumerate(params.side):
        here = slice(index, index + 1)
        assert differing(got[here], episode[here]) == changed[side]


@pytest.mark.parametrize("shots", [1, 3])
def test_batched_equals_one_at_a_time(shots):
    episode = episode_of(shots=shots)
    together = augment(episode, draw_for(USUAL, count=6))
    for index in range(6):
        rng = np.random.default_rng([0, index])
        params = draw(USUAL, [rng], height=HEIGHT, width=WIDTH)
        alone = augment(episode[index : index + 1], params)
        for field in fields(Episode):
            batched = getattr(together, field.name)[index : index + 1]
            torch.testing.assert_close(getattr(alone, field.name), batched, rtol=0, atol=1e-4)


def test_all_shots_move_alike_and_each_keeps_its_own_greys():
    one = episode_of(shots=1)
    episode = Episode(
        support=torch.cat([one.support, 3 * one.support - 7], dim=1),
        support_mask=one.support_mask.repeat(1, 2, 1, 1),
        query=one.query,
        query_mask=one.query_mask,
    )
    got = augment(episode, draw_for(USUAL, count=6))
    assert torch.equal(got.support_mask[:, 0], got.support_mask[:, 1])
    torch.testing.assert_close(got.support[:, 1], 3 * got.support[:, 0] - 7, rtol=0, atol=1e-4)


def test_both_sides_are_changed_in_the_same_way():
    one = episode_of(shots=1)
    episode = Episode(one.support, one.support_mask, one.support[:, 0], one.support_mask[:, 0])
    params = draw_for(USUAL, count=6)
    on_support = augment(episode, replace(params, side=(SUPPORT,) * 6))
    on_query = augment(episode, replace(params, side=(QUERY,) * 6))
    assert torch.equal(on_support.support[:, 0], on_query.query)
    assert torch.equal(on_support.support_mask[:, 0], on_query.query_mask)


def test_masks_stay_in_zero_and_one():
    got = augment(episode_of(), draw_for(USUAL, count=6))
    assert set(got.support_mask.unique().tolist()) == {0.0, 1.0}
    assert set(got.query_mask.unique().tolist()) == {0.0, 1.0}


def test_the_same_generators_give_the_same_episode():
    episode = episode_of()
    got = augment(episode, draw_for(USUAL, count=6))
    assert differing(got, augment(episode, draw_for(USUAL, count=6))) == set()
    other = augment(episode, draw_for(USUAL, count=6, seed=1))
    assert differing(got, other) == {field.name for field in fields(Episode)}


def test_gamma_and_place_each_act_on_their_own():
    episode = episode_of()
    gamma_only = augment(episode, draw_for(replace(IDENTITY, gamma=(0.5, 1.5)), count=6))
    assert differing(gamma_only, episode) == {"support", "query"}
    for change in ({"rotation": 5.0}, {"shift": 5.0}, {"shear": 5.0}, {"alpha": 40.0}):
        moved = augment(episode, draw_for(replace(IDENTITY, **change), count=6))
        assert differing(moved, episode) == {field.name for field in fields(Episode)}


@pytest.mark.parametrize("level", [0.0, -1.5])
def test_constant_images_stay_finite_and_constant(level):
    flat = torch.full((4, 1, 1, HEIGHT, WIDTH), level)
    empty = torch.zeros(4, 1, HEIGHT, WIDTH)
    episode = Episode(flat, empty, flat[:, 0], empty[:, 0])
    got = augment(episode, draw_for(USUAL, count=4))
    assert got.support.dtype == torch.float32
    assert differing(got, episode) == set()


def test_the_input_is_not_written_to():
    episode, params = episode_of(), draw_for(USUAL, count=6)
    before = [getattr(episode, field.name).clone() for field in fields(Episode)]
    augment(episode, params)
    assert all(
        torch.equal(getattr(episode, field.name), copy)
        for field, copy in zip(fields(Episode), before, strict=True)
    )


def test_no_value_is_read_back_to_the_host():
    """Tensors on `meta` have no values: reading one raises."""
    got = augment(episode_of().to("meta"), draw_for(USUAL, count=6).to("meta"))
    assert got.support.shape == (6, 2, 1, HEIGHT, WIDTH)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_computes_what_the_cpu_does_without_waiting_for_it():
    episode, params = episode_of(), draw_for(USUAL, count=6)
    expected = augment(episode, params)
    episode, params = episode.to("cuda"), params.to("cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        got = augment(episode, params)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    got = got.to("cpu")
    torch.cuda.synchronize()
    torch.testing.assert_close(got.support, expected.support, rtol=0, atol=1e-2)
    assert (got.support_mask != expected.support_mask).float().mean() < 1e-3
