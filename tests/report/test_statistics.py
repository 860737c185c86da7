from math import isnan

import numpy as np
import pandas as pd
import pytest
from fakes import fake_rows, one_number
from scipy import stats

from catnet.errors import UserError
from catnet.report.statistics import compare, describe

THREE = {"rounds=1": (1, 50), "rounds=2": (2, 52), "rounds=3": (3, 55)}


def line_of(frame, **wanted):
    for name, value in wanted.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def joined(*parts):
    return pd.concat(parts, ignore_index=True)


def test_means_and_deviations_by_hand():
    rows = joined(
        one_number([("1", 40), ("2", 60)]),
        one_number([("1", 20)], organ="spleen"),
        one_number([("3", 80)], fold=1, run="b"),
    )
    found = describe(rows)
    assert found["organ"].tolist() == ["liver", "spleen", "mean"]
    liver, spleen, overall = (found.iloc[index] for index in range(3))
    assert (liver["mean"], liver["patients"], liver["folds"], liver["seeds"]) == (60, 3, 2, 1)
    assert liver["sd_cases"] == pytest.approx(20)
    assert liver["sd_folds"] == pytest.approx(np.std([50, 80], ddof=1))
    assert isnan(liver["sd_seeds"])
    assert (spleen["mean"], spleen["patients"]) == (20, 1)
    assert isnan(spleen["sd_cases"])
    assert isnan(spleen["sd_folds"])
    assert isnan(spleen["low"])
    assert (overall["mean"], overall["patients"]) == (40, 3)  # of 60 and 20
    assert overall["sd_cases"] == pytest.approx(np.std([30, 60, 80], ddof=1))


def test_a_patient_tested_twice_counts_once():
    once = one_number([("1", 40), ("2", 60), ("3", 80)])
    again = one_number([("1", 40)] * 3, fold=1).assign(support=["7", "8", "9"])
    twice = joined(once, again)
    keys = ["mean", "low", "high", "sd_cases", "patients"]
    for name in ("liver", "mean"):
        expected, found = (line_of(describe(rows), organ=name)[keys] for rows in (once, twice))
        np.testing.assert_allclose(found.astype(float), expected.astype(float))


def test_sd_over_seeds_is_of_the_folds_that_every_seed_has():
    rows = joined(
        one_number([("1", 40), ("2", 50)]),
        one_number([("1", 44), ("2", 54)], seed=1),
        one_number([("9", 99)], fold=1),
    )
    assert line_of(describe(rows), organ="liver")["sd_seeds"] == pytest.approx(
        np.std([0, 4], ddof=1)
    )


def test_seeds_that_share_no_fold_have_no_deviation():
    rows = joined(one_number([("1", 40)]), one_number([("2", 50)], fold=1, seed=1, run="b"))
    line = line_of(describe(rows), organ="mean")
    assert (line["mean"], line["folds"], line["seeds"]) == (45, 2, 2)
    assert isnan(line["sd_seeds"])


def test_floors_come_first_and_copying_stands_once():
    found = describe(fake_rows(THREE))
    lines = found[["model", "variant"]].drop_duplicates().values.tolist()
    names = list(THREE)
    assert lines == [
        ["copy", ""],
        *(["untrained", name] for name in names),
        *(["catnet", name] for name in names),
    ]


def test_a_floor_that_differs_stays_apart():
    rows = fake_rows(THREE, protocols=("EP1",))
    other = (rows["model"] == "copy") & (rows["variant"] == "rounds=2")
    rows.loc[other & (rows["query"] == "0"), "value"] += 1
    copies = describe(rows).query("model == 'copy' and organ == 'mean'")
    assert copies["variant"].tolist() == list(THREE)
    more = fake_rows(THREE, protocols=("EP1",))
    more.loc[more["variant"] == "rounds=2", "support"] = "100+101"  # as with two shots
    copies = describe(more).query("model == 'copy' and organ == 'mean'")
    assert copies["variant"].tolist() == list(THREE)


def test_another_metric_and_one_that_is_not_there():
    rows = one_number([("1", 3), ("2", 5)]).assign(metric="hd95")
    assert line_of(describe(rows, "hd95"), organ="mean")["mean"] == 4
    with pytest.raises(UserError, match="no dice"):
        describe(rows)


def pair(first, second, **others):
    return joined(one_number(first, variant="a"), one_number(second, variant="b", **others))


def test_a_comparison_by_hand():
    names = [str(number) for number in range(8)]
    apart = np.array([1, 2, 3, 4, 5, 6, 7, -8.0])
    rows = pair(zip(names, 50 + apart, strict=True), [(name, 50) for name in names])
    found = compare(rows, reference="b")
    assert found["variant"].tolist() == ["a", "a"]
    line = line_of(found, organ="liver")
    assert line["difference"] == pytest.approx(20 / 8)
    assert line["p"] == pytest.approx(stats.wilcoxon(apart).pvalue)
    assert line["effect"] == pytest.approx((28 - 8) / 36)
    assert (line["pairs"], line["dropped"], line["patients"], line["differing"]) == (8, 0, 8, 8)
    assert line["p_holm"] == pytest.approx(min(1, 2 * line["p"]))  # liver and mean
    assert not line["told_apart"]
    mirror = line_of(compare(rows, reference="a"), organ="liver")
    assert mirror["difference"] == -line["difference"]
    assert (mirror["low"], mirror["high"]) == pytest.approx((-line["high"], -line["low"]), abs=0.2)
    assert mirror["p"] == line["p"]


def test_duplicates_of_a_patient_do_not_change_p():
    names = [str(number) for number in range(7)]
    generator = np.random.default_rng(0)
    first, second = generator.normal(51, 2, 7), generator.normal(50, 2, 7)
    rows = pair(zip(names, first, strict=True), zip(names, second, strict=True))
    more = [rows, *(rows.assign(support=s, fold=f) for s, f in (("7", 1), ("8", 1), ("9", 2)))]
    once, often = compare(rows, "a"), compare(joined(*more), "a")
    assert often["pairs"].tolist() == [4 * count for count in once["pairs"]]
    for name in ("p", "p_holm", "effect", "patients", "difference"):
        np.testing.assert_allclose(often[name], once[name])


def test_only_what_both_have_is_compared_and_the_rest_counted():
    rows = pair([("1", 50), ("2", 60), ("3", 99)], [("1", 48), ("2", 57), ("4", 0)])
    line = line_of(compare(rows, "b"), organ="mean")
    assert (line["difference"], line["pairs"], line["dropped"]) == (2.5, 2, 2)
    other_seed = pair([("1", 50), ("2", 60)], [("1", 48), ("2", 57)], seed=1)
    line = line_of(compare(other_seed, "b"), organ="mean")
    assert isnan(line["p"])
    assert isnan(line["p_holm"])
    assert isnan(line["difference"])
    assert not line["told_apart"]
    assert "not tested" in line["note"]


def test_the_mean_is_over_the_organs_both_have():
    rows = joined(
        pair([("1", 50)], [("1", 40)]),
        one_number([("1", 90)], variant="a", organ="spleen"),
        one_number([("2", 70)], variant="a", organ="spleen"),
        one_number([("2", 66)], variant="b", organ="spleen"),
    )
    line = line_of(compare(rows, "b"), organ="mean")
    assert (line["difference"], line["patients"], line["dropped"]) == (7, 2, 1)  # of 10 and 4


def test_fewer_than_six_patients_are_never_told_apart():
    names = [str(number) for number in range(5)]
    rows = pair([(name, 90) for name in names], [(name, 10) for name in names])
    found = compare(rows, "b")
    assert not found["told_apart"].any()
    assert found["note"].str.contains("p cannot be below 0.0625").all()


def test_the_best_is_the_reference_of_each_protocol():
    rows = fake_rows(THREE, patients=10)
    worse = (rows["protocol"] == "EP2") & (rows["variant"] == "rounds=3")
    rows.loc[worse & (rows["model"] == "catnet"), "value"] -= 20
    found = compare(rows).groupby("protocol")["reference"].unique()
    assert found["EP1"].tolist() == ["rounds=3"]
    assert found["EP2"].tolist() == ["rounds=2"]


def test_a_reference_that_the_data_chose_pays_for_all_pairs():
    rows = fake_rows({f"rounds={n}": (n, 50 + n) for n in range(1, 5)}, patients=8, noise=2)
    named, chosen = compare(rows, "rounds=4"), compare(rows)
    np.testing.assert_allclose(named["p"], chosen["p"])
    smallest = named.groupby("protocol")["p"].min()
    for frame, family in ((named, 3 * 5), (chosen, 6 * 5)):
        best = frame.groupby("protocol")["p_holm"].min()
        np.testing.assert_allclose(best, (smallest * family).clip(upper=1))


def test_two_variants_are_told_apart_where_they_are():
    rows = fake_rows({"a": (1, 50), "b": (2, 60)}, patients=10)
    assert compare(rows)["told_apart"].all()
    same = fake_rows({"a": (1, 50), "b": (2, 50)}, patients=10, seed=5)
    assert not compare(same)["told_apart"].any()


def test_a_false_alarm_is_rare():
    """Four equal variants, the best of which is chosen by looking: at most 5 % in the long run."""
    kinds = {f"rounds={n}": (n, 50) for n in range(4)}
    options = {"patients": 10, "organs": ("liver",), "protocols": ("EP1",), "costs": False}
    alarms = [compare(fake_rows(kinds, seed=n, **options))["told_apart"].any() for n in range(40)]
    assert sum(alarms) <= 5  # of 40; 2 expected at the most


def test_every_variant_against_its_own_floor():
    rows = fake_rows(THREE, patients=6)
    found = compare(rows, reference="copy")
    assert found["variant"].drop_duplicates().tolist() == list(THREE)
    assert set(found["reference"]) == {"copy"}
    overall = found[(found["organ"] == "mean") & (found["protocol"] == "EP1")]
    np.testing.assert_allclose(overall["difference"], [15, 17, 20], atol=1)


def test_one_variant_has_nothing_to_compare_and_a_strange_reference_is_named():
    rows = fake_rows({"only": (1, 50)})
    assert compare(rows).empty
    assert "p_holm" in compare(rows).columns
    with pytest.raises(UserError, match=r"'onyl'.*only, copy, untrained"):
        compare(rows, "onyl")
