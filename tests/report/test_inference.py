from math import isnan

import numpy as np
import pytest
from scipy import stats

from catnet.report.inference import holm, interval, mean_of_organs, signed_rank

NAN = float("nan")


def test_holm_on_a_textbook_example():
    found = holm(np.array([0.01, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_was_not_tested_and_stops_at_one():
    found = holm(np.array([0.6, NAN, 0.02, 0.7]))
    np.testing.assert_allclose(found, [1, NAN, 0.06, 1])
    assert holm(np.array([])).shape == (0,)


@pytest.mark.parametrize("unseen", [[0.9, 0.8], [0.001, 0.5]])
def test_a_larger_family_never_gives_less_than_holm_over_all_of_it(unseen):
    given = np.array([0.004, 0.03])
    bound = holm(given, tests=4)
    np.testing.assert_allclose(bound, [0.016, 0.09])
    assert (bound >= holm(np.array([*given, *unseen]))[:2] - 1e-12).all()


def test_mean_of_organs_is_the_organs_means_first():
    values = np.array([[40.0, 20.0], [60.0, NAN]])
    assert mean_of_organs(values) == 35  # of 50 and 20, and not of 30 and 60
    np.testing.assert_allclose(mean_of_organs(np.stack([values, values + 1])), [35, 36])


@pytest.mark.parametrize("count", [6, 20, 60])
def test_p_is_scipys(count):
    sample = np.random.default_rng(count).normal(0.4, 1, count)
    p, effect, note = signed_rank(sample)
    assert p == pytest.approx(stats.wilcoxon(np.round(sample, 9)).pvalue, rel=1e-12)
    ranks = stats.rankdata(abs(sample))
    assert effect == pytest.approx(
        (ranks[sample > 0].sum() - ranks[sample < 0].sum()) / ranks.sum()
    )
    assert note == ""


def test_p_and_effect_by_hand():
    p, effect, _ = signed_rank(np.array([1.0, 2, 3, 4, 5, -6]))
    assert effect == pytest.approx((15 - 6) / 21)
    smaller = 14  # subsets of {1, ..., 6} that sum to at most 6: counted by hand
    assert p == pytest.approx(2 * smaller / 64)


def test_zeros_are_dropped_and_last_bits_are_ties():
    values = np.array([1.0, 2, 3, 4, 5, 6])
    assert signed_rank(np.array([0.0, 1e-13, *values])) == signed_rank(values)
    near = np.array([0.3, 0.1 + 0.2, -0.3, 1, 2, 3, 4])
    assert signed_rank(near) == signed_rank(np.round(near, 6))


def test_few_patients_have_a_note_and_none_has_no_p():
    p, effect, note = signed_rank(np.array([1.0, 2, 3, 4, 5, 0]))
    assert p == pytest.approx(2 / 2**5)
    assert effect == 1
    assert note == "only 5 patients differ: p cannot be below 0.0625"
    assert signed_rank(np.zeros(9)) == (1.0, 0.0, "no patient differs")
    p, effect, note = signed_rank(np.array([]))
    assert isnan(p)
    assert isnan(effect)
    assert "not tested" in note


def test_an_interval_needs_three_patients_and_repeats():
    assert all(isnan(end) for end in interval(np.array([[1.0], [2.0]])))
    sample = np.random.default_rng(0).normal(5, 1, (12, 3))
    low, high = interval(sample)
    assert low < sample.mean() < high
    assert interval(sample) == (low, high)
    assert interval(np.full((4, 1), 7.0)) == (7, 7)


def test_an_interval_is_scipys_for_one_organ():
    sample = np.random.default_rng(1).exponential(1, 15)
    expected = stats.bootstrap(
        (sample,),
        np.mean,
        method="percentile",
        n_resamples=9999,
        batch=1000,
        random_state=np.random.default_rng(0),
    ).confidence_interval
    np.testing.assert_allclose(interval(sample[:, None]), [expected.low, expected.high])


def test_an_organ_that_few_patients_have_gives_finite_ends():
    sample = np.random.default_rng(2).normal(50, 5, (5, 2))
    sample[1:, 1] = NAN
    low, high = interval(sample)
    assert low < high


def test_the_interval_covers_the_known_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    samples = generator.normal(0, 1, (200, 30, 1))
    ends = np.array([interval(sample) for sample in samples])
    covered = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert 0.88 < covered < 0.99
