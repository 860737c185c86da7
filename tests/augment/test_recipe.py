from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from catnet.augment import NEITHER, QUERY, SUPPORT, Recipe, draw
from catnet.config import AugmentSettings
from catnet.errors import UserError

RECIPE = Recipe(
    probability=0.5,
    gamma=(0.5, 1.5),
    rotation=5.0,
    shift=6.0,
    shear=7.0,
    scale=(0.9, 1.2),
    alpha=10.0,
    sigma=5.0,
)


def rngs(count, *, seed=0):
    return [np.random.default_rng([seed, index]) for index in range(count)]


def assert_same(one, other):
    for field in fields(one):
        assert same(getattr(one, field.name), getattr(other, field.name)), field.name


def same(one, other):
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_the_same_generators_draw_the_same():
    one = draw(RECIPE, rngs(5), height=8, width=6)
    assert_same(one, draw(RECIPE, rngs(5), height=8, width=6))
    assert not torch.equal(one.noise, draw(RECIPE, rngs(5, seed=1), height=8, width=6).noise)


def test_a_draw_does_not_depend_on_the_batch_it_is_in():
    together = draw(RECIPE, rngs(5), height=8, width=6)
    for index, rng in enumerate(rngs(5)):
        alone = draw(RECIPE, [rng], height=8, width=6)
        for field in fields(alone):
            batched = getattr(together, field.name)
            if isinstance(batched, torch.Tensor | tuple):
                batched = batched[index : index + 1]
            assert same(getattr(alone, field.name), batched), field.name


def test_turning_one_change_off_leaves_the_others():
    one = draw(RECIPE, rngs(5), height=8, width=6)
    other = draw(
        replace(RECIPE, gamma=(1.0, 1.0), rotation=0.0, alpha=0.0), rngs(5), height=8, width=6
    )
    assert (other.gamma == 1).all()
    assert (other.rotation == 0).all()
    assert other.alpha == 0
    for name in ("side", "shift", "shear", "scale", "sigma", "noise"):
        assert same(getattr(one, name), getattr(other, name)), name


def test_the_settings_of_a_run_are_a_recipe():
    recipe = Recipe(**AugmentSettings(rotation=3.0, scale=(0.8, 1.1)).model_dump())
    assert (recipe.rotation, recipe.scale) == (3.0, (0.8, 1.1))


def test_values_fill_their_ranges_evenly():
    params = draw(RECIPE, rngs(2000), height=2, width=2)
    ranges = {
        "gamma": (0.5, 1.5),
        "rotation": (-5.0, 5.0),
        "shift": (-6.0, 6.0),
        "shear": (-7.0, 7.0),
        "scale": (0.9, 1.2),
        "noise": (-1.0, 1.0),
    }
    for name, (low, high) in ranges.items():
        share = (getattr(params, name) - low) / (high - low)
        assert 0 <= share.min() < 0.01, name
        assert 0.99 < share.max() <= 1, name
        assert share.mean() == pytest.approx(0.5, abs=0.02), name
        assert share.std() == pytest.approx(12**-0.5, abs=0.01), name


def test_values_are_independent_of_each_other():
    params = draw(replace(RECIPE, probability=1.0), rngs(2000), height=1, width=1)
    columns = [
        torch.tensor(params.side), params.gamma, params.rotation, *params.shift.T, params.shear,
        params.scale, *params.noise.flatten(start_dim=1).T,
    ]  # fmt: skip
    correlation = torch.corrcoef(torch.stack(columns)) - torch.eye(len(columns))
    assert correlation.abs().max() < 0.1


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_side_is_flipped_and_some_episodes_are_left(probability):
    params = draw(replace(RECIPE, probability=probability), rngs(2000), height=1, width=1)
    share = {side: params.side.count(side) / 2000 for side in (NEITHER, SUPPORT, QUERY)}
    assert share[NEITHER] == pytest.approx(1 - probability, abs=0.04)
    assert share[SUPPORT] == pytest.approx(probability / 2, abs=0.04)
    assert share[QUERY] == pytest.approx(probability / 2, abs=0.04)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("probability", 1.1),
        ("gamma", (0.0, 1.0)),
        ("gamma", (1.5, 0.5)),
        ("scale", (1.2, 0.9)),
        ("scale", (-1.0, 1.0)),
        ("rotation", -5.0),
        ("shear", 90.0),
        ("shift", -1.0),
        ("alpha", -1.0),
        ("sigma", 0.0),
        ("gamma", (float("nan"), 1.0)),
    ],
)
def test_a_senseless_range_is_refused_by_name(name, value):
    with pytest.raises(UserError, match=f"augmentation: {name}"):
        replace(RECIPE, **{name: value})
