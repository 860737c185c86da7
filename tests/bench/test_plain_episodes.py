"""The plain loader draws from the distribution that the library draws from.

Displacements are read off slices that hold their own coordinates, so both sides are asked through
what they do to an episode. The tolerances are about four standard errors of the statistics.
"""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from catnet.augment import Recipe, augment, draw
from catnet.bench.plain_episodes import (
    Pair,
    plain_augmented,
    plain_change,
    plain_episode,
    plain_pair,
)
from catnet.config import AugmentSettings
from catnet.episode import Episode
from catnet.train import open_training

SIDE, COUNT = 64, 300
INNER = slice(20, 44)
EMPTY = np.zeros((SIDE, SIDE), dtype=bool)
STILL = {"rotation": 0.0, "shift": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "alpha": 0.0}
MIDDLE = (SIDE - 1) / 2
CHANGES = {
    "all": {},
    "elastic": STILL | {"alpha": 10.0},
    "rotation": STILL | {"rotation": 5.0},
    "shear": STILL | {"shear": 5.0},
    "scale": STILL | {"scale": (0.9, 1.2)},
    "shift": STILL | {"shift": 5.0},
}


def coordinates():
    """Two slices: the column and the row of every pixel."""
    row, column = np.indices((SIDE, SIDE), dtype=np.float64)
    return column, row


def plain_displacements(settings):
    """(count, 2, h, w): where pixels of the inner part look, less where they are."""
    found = []
    for number in range(COUNT):
        moved = [
            plain_change(image, EMPTY, np.random.default_rng([1, number]), settings)[0] - image
            for image in coordinates()
        ]
        found.append(np.stack(moved)[:, INNER, INNER])
    return np.stack(found)


def library_displacements(settings):
    images = torch.from_numpy(np.stack(coordinates())).float()
    both = images[None, :, None]
    query, mask = torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1, SIDE, SIDE)
    episode = Episode(both, torch.zeros(1, 2, SIDE, SIDE), query, mask)
    found, recipe = [], Recipe(**settings.model_dump())
    for number in range(4 * COUNT):
        params = draw(recipe, [np.random.default_rng([2, number])], height=SIDE, width=SIDE)
        moved = augment(episode, params).support[0, :, 0] - images
        if moved.abs().sum() > 0:  # else the query was changed
            found.append(moved[:, INNER, INNER].numpy())
    return np.stack(found[:COUNT])


def statistics(field):
    """Mean and spread of both axes, growth along and across them, and how like neighbors are."""
    center = field[:, :, 12, 12]
    slopes = (np.gradient(field, axis=axis).mean(axis=(-2, -1)) for axis in (-1, -2))
    fine = field - field.mean(axis=(-2, -1), keepdims=True)
    along = [(fine[..., step:] * fine[..., : 24 - step]).mean(axis=(0, 2, 3)) for step in (0, 3, 6)]
    spread = np.std(field, axis=0).mean(axis=(-2, -1))
    return {
        "mean": center.mean(axis=0),
        "spread": spread,
        "slopes": np.concatenate([part.std(axis=0) for part in slopes]),
        "bias": field.mean(axis=(0, 2, 3)),
        "covariance": np.concatenate(along),
    }


@pytest.mark.parametrize("name", CHANGES)
def test_displacements_have_the_library_s_distribution(name):
    settings = AugmentSettings(gamma=(1.0, 1.0), **CHANGES[name])
    plain, library = (
        statistics(make(settings)) for make in (plain_displacements, library_displacements)
    )
    largest = max(library["spread"].max(), 0.1)
    for what in ("mean", "bias"):
        np.testing.assert_allclose(plain[what], library[what], atol=0.33 * largest)
    np.testing.assert_allclose(plain["spread"], library["spread"], rtol=0.2, atol=0.02)
    np.testing.assert_allclose(plain["slopes"], library["slopes"], rtol=0.25, atol=0.002)
    covariance = library["covariance"]
    np.testing.assert_allclose(
        plain["covariance"], covariance, rtol=0.25, atol=0.1 * covariance.max() + 1e-3
    )


def exponents(change):
    """The exponent that takes a level of one half, between zero and one, to what came out."""
    image = np.full((SIDE, SIDE), 0.5)
    image[0, 0], image[0, 1] = 0.0, 1.0
    return np.array([np.log(change(image, number)) / np.log(0.5) for number in range(2 * COUNT)])


def test_gamma_has_the_library_s_distribution():
    settings = AugmentSettings(**STILL)
    recipe = Recipe(**settings.model_dump())

    def plain(image, number):
        generator = np.random.default_rng([3, number])
        return plain_change(image, EMPTY, generator, settings)[0][32, 32]

    def library(image, number):
        slices = torch.from_numpy(image).float()[None, None]
        mask = torch.zeros(1, SIDE, SIDE)
        episode = Episode(slices[None], mask[None], slices, mask)
        params = draw(recipe, [np.random.default_rng([4, number])], height=SIDE, width=SIDE)
        changed = augment(episode, params)
        sides = torch.stack([changed.support[0, 0, 0], changed.query[0, 0]])[:, 32, 32]
        return sides[(sides - 0.5).abs().argmax()].item()

    found = np.stack([exponents(plain), exponents(library)])
    np.testing.assert_allclose(found.mean(axis=1), 1.0, atol=0.05)
    np.testing.assert_allclose(found.std(axis=1), 1 / np.sqrt(12), rtol=0.08)
    assert found.min() >= 0.499
    assert found.max() <= 1.501


def test_one_side_is_changed_as_often_as_the_other():
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    pair = Pair(image, EMPTY, image, EMPTY)
    settings = AugmentSettings(probability=0.5)
    counts = Counter()
    for number in range(400):
        changed = plain_augmented(pair, np.random.default_rng([5, number]), settings)
        sides = (changed.support is not image, changed.query is not image)
        counts[sides] += 1
    assert counts[True, True] == 0
    assert abs(counts[False, False] - 200) < 40
    assert abs(counts[True, False] - 100) < 40


def allowed(cases, min_pixels):
    """Every ordered pair of masks that an episode may have, and which case it is of."""
    found = {}
    for number, case in enumerate(cases):
        for one, other in pairwise(np.asarray(case.supervoxels)):
            for label in set(np.unique(one)) & set(np.unique(other)) - {0}:
                masks = one == label, other == label
                if max(mask.sum() for mask in masks) >= min_pixels:
                    found |= dict.fromkeys([key(*masks), key(*masks[::-1])], number)
    return found


def key(support, query):
    return support.tobytes() + query.tobytes()


def test_episodes_are_those_that_the_library_draws(scene):
    folder = scene.run()
    _, source = open_training(folder)
    folders = [case.folder for case in source.cases]
    least = folder.run.data.min_pixels
    pairs = [
        plain_pair(folders, np.random.default_rng([6, n]), min_pixels=least) for n in range(80)
    ]
    drawn = [source.batch([source.generator(n)]) for n in range(80)]
    known = allowed(source.cases, least)
    plain = [known[key(pair.support_mask, pair.query_mask)] for pair in pairs]
    library = [
        known[key(e.support_mask[0, 0].numpy() > 0, e.query_mask[0].numpy() > 0)] for e in drawn
    ]
    for found in (plain, library):  # each case as often as the other
        assert 20 < sum(found) < 60
    image = np.concatenate([np.asarray(case.image) for case in source.cases])
    for pair in pairs[:5]:
        assert np.abs(image - pair.support).max(axis=(1, 2)).min() < 1e-4


def test_an_episode_keeps_the_pair(scene):
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE))
    pair = Pair(image, image > 1, image + 1, image < 0)
    episode = plain_episode(pair, device=torch.device("cpu"), dtype=torch.float64)
    assert episode.support.shape == (1, 1, 1, SIDE, SIDE)
    np.testing.assert_array_equal(episode.query[0, 0], pair.query)
    np.testing.assert_array_equal(episode.support_mask[0, 0], pair.support_mask)
