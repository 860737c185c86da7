import re

import pytest
from fakes import fake_rows

from catnet.report.answer import answer, warnings
from catnet.report.statistics import compare, describe

THREE = {"rounds=1": (1, 50), "rounds=2": (2, 55), "rounds=3": (3, 52)}


def one_sentence(text):
    assert text.endswith(".")
    assert not re.search(r"[.!?] [A-Z]", text)
    assert "nan" not in text
    assert text[0].isupper()
    return text


def test_the_best_the_runner_up_and_how_sure():
    rows = fake_rows(THREE, patients=4, folds=3, seeds=2)
    text = one_sentence(answer(rows, ["model.rounds"]))
    found = describe(rows).query("variant == 'rounds=2' and model == 'catnet' and organ == 'mean'")
    line = found[found["protocol"] == "EP1"].iloc[0]
    assert text.startswith("Of the 3 variants of model.rounds")
    assert (
        f"under EP1 rounds=2 is best with {line['mean']:.1f} % (95 % interval {line['low']:.1f} to "
        f"{line['high']:.1f}; 12 patients, 3 folds, 2 seeds)"
    ) in text
    compared = compare(rows).query("variant == 'rounds=3' and organ == 'mean'")
    beside = compared[compared["protocol"] == "EP1"].iloc[0]
    assert f"{-beside['difference']:.1f} points (" in text
    assert text.count("the runner-up rounds=3, from which it is told apart (Holm p ") == 2
    assert "under EP2 rounds=2" in text
    assert "may change" not in text


def test_one_fold_and_one_seed_are_said():
    text = one_sentence(answer(fake_rows(THREE, patients=8), "model.rounds"))
    assert text.startswith("Of the 3 variants of model.rounds")
    assert "with one fold and one seed, other patients or another training may change this" in text
    folds = one_sentence(answer(fake_rows(THREE, patients=2, folds=4), ["model.rounds"]))
    assert "with one seed, another training may change this" in folds


def test_few_patients_find_nothing():
    text = one_sentence(answer(fake_rows(THREE, patients=5), ["model.rounds"]))
    assert "told apart" not in text
    assert text.count("copying the support mask, which tells nothing either") == 2
    assert text.count("tells nothing (only 5 patients differ: p cannot be below 0.0625)") == 2
    fewer = one_sentence(answer(fake_rows(THREE, patients=2), ["model.rounds"]))
    assert "(no interval: 2 patients, 1 fold, 1 seed)" in fewer


def test_equals_are_not_told_apart():
    rows = fake_rows({"a": (1, 50), "b": (2, 50)}, patients=12)
    assert answer(rows, ["model.rounds"]).count("cannot be told apart (Holm p ") == 2
    same = fake_rows({"a": (1, 50), "b": (2, 50)}, patients=12, noise=0)
    assert one_sentence(answer(same, ["x"])).count("tells nothing (no patient differs)") == 2


def test_each_protocol_has_its_own_best():
    rows = fake_rows(THREE, patients=8)
    worse = (rows["protocol"] == "EP2") & (rows["variant"] == "rounds=2")
    rows.loc[worse & (rows["model"] == "catnet"), "value"] -= 9
    text = one_sentence(answer(rows, ["model.rounds"]))
    assert "under EP1 rounds=2 is best" in text
    assert "under EP2 rounds=3 is best" in text


@pytest.mark.parametrize(("mean", "word"), [(50, "above"), (20, "below")])
def test_one_variant_is_set_beside_copying(mean, word):
    text = one_sentence(answer(fake_rows({"base": (1, mean)}, patients=12), []))
    assert text.startswith("Under EP1 base reaches ")
    assert f"{word} copying the support mask, from which it is told apart" in text
    assert "best" not in text


def test_one_variant_without_a_floor():
    rows = fake_rows({"base": (1, 50)})
    text = one_sentence(answer(rows[rows["model"] == "catnet"], []))
    assert "nothing to set it beside" in text


def test_variants_that_share_no_pair_are_not_compared():
    rows = fake_rows({"a": (1, 50), "b": (2, 60)}, patients=8)
    rows.loc[rows["variant"] == "b", "support"] = "1+2+3"
    text = one_sentence(answer(rows, ["evaluate.shots"]))
    assert (
        text.count("not to be compared with the runner-up a: no support and query are common") == 2
    )
    assert text.count("told apart") == 2
    assert text.count("above copying the support mask, from which it cannot be told apart") == 2


@pytest.mark.parametrize(("best", "word"), [(55, "above"), (20, "below")])
def test_the_best_of_several_is_set_beside_copying_in_pairs(best, word):
    rows = fake_rows({"a": (1, best), "b": (2, best - 8)}, patients=12)
    text = one_sentence(answer(rows, ["model.rounds"]))
    lines = compare(rows, reference="copy").query("variant == 'a' and organ == 'mean'")
    for _, line in lines.iterrows():
        low, high = line["low"], line["high"]
        assert (
            f"and {abs(line['difference']):.1f} points ({low:+.1f} to {high:+.1f}) {word} copying "
            f"the support mask, from which it is told apart (Holm p {line['p_holm']:.3f})"
        ) in text
    assert len(lines) == 2


def test_a_caution_where_the_best_lies_below_copying():
    assert warnings(fake_rows({"a": (1, 55), "b": (2, 20)}, patients=8)) == ()
    (both,) = warnings(fake_rows({"a": (1, 28), "b": (2, 20)}, patients=8))
    assert both.startswith("Under EP1 and EP2 the best variant lies below copying the support mask")
    rows = fake_rows({"a": (1, 40)}, patients=8)
    worse = (rows["protocol"] == "EP2") & (rows["model"] == "catnet")
    rows.loc[worse, "value"] -= 20
    assert warnings(rows)[0].startswith("Under EP2 the network lies below copying")
    (unknown,) = warnings(rows[rows["model"] != "copy"])
    assert "was not evaluated" in unknown
