import numpy as np
import pandas as pd
import pytest
from fakes import fake_rows

from catnet.errors import UserError
from catnet.report.comparable import check_comparable

TWO = {"a": (1, 50), "b": (2, 52)}


@pytest.fixture
def rows():
    return fake_rows(TWO, folds=2, organs=("liver", "spleen"))


def refused(rows, *words):
    with pytest.raises(UserError) as found:
        check_comparable(rows)
    text = str(found.value)
    assert all(word in text for word in words), text
    assert "\n" not in text


def changed(rows, where, **values):
    rows = rows.copy()
    for name, value in values.items():
        rows.loc[where, name] = value
    return rows


def test_rows_of_folds_seeds_and_variants_pass(rows):
    check_comparable(rows)
    check_comparable(fake_rows(TWO, folds=2, seeds=2))
    check_comparable(fake_rows({"a": (1, 50)}))
    costs = ~rows["protocol"].astype(bool)
    empty = changed(rows, costs, protocol=np.nan, support=np.nan, query=np.nan, organ=np.nan)
    check_comparable(empty)


def test_no_rows_and_no_columns(rows):
    refused(rows[:0], "no rows")
    refused(rows.drop(columns=["fold", "card"]), "card, fold")
    refused(pd.DataFrame(), "columns")
    refused(rows[rows["protocol"] == ""], "costs alone")


@pytest.mark.parametrize(
    ("fact", "value"), [("card", "sabs"), ("setting", "2"), ("policy", "each"), ("shots", 5)]
)
def test_facts_that_must_be_one(rows, fact, value):
    refused(changed(rows, rows["variant"] == "b", **{fact: value}), fact, str(value), "b-f0-s0")


def test_shots_may_vary_where_they_are_the_question(rows):
    rows = changed(rows.rename(columns={"model.rounds": "evaluate.shots"}), rows.index, shots=1)
    rows = changed(rows, rows["variant"] == "b", shots=5)
    check_comparable(rows)
    refused(changed(rows, rows["run"] == "b-f1-s0", shots=1), "shots", "variant b")


def test_a_variant_has_one_network(rows):
    trained = (rows["model"] == "catnet") & (rows["run"] == "b-f1-s0")
    refused(changed(rows, trained, model="panet"), "catnet", "panet", "variant b", "b-f1-s0")


@pytest.mark.parametrize("value", [np.nan, np.inf, "none"])
def test_a_value_that_is_no_number(rows, value):
    rows["value"] = rows["value"].astype(object)
    refused(changed(rows, rows.index[5], value=value), "a-f0-s0", "no number")


def test_the_same_thing_twice(rows):
    refused(pd.concat([rows, rows[7:8]]), "2 times", "a-f0-s0")
    again = rows[rows["run"] == "b-f1-s0"].assign(run="b-copy")
    refused(pd.concat([rows, again]), "2 times", "b-f1-s0", "b-copy", "fold 1")


@pytest.mark.parametrize(("column", "name"), [("protocol", "EP2"), ("organ", "spleen")])
def test_what_only_some_runs_have(rows, column, name):
    gone = (rows["run"] == "a-f1-s0") & (rows[column] == name)
    refused(rows[~gone], column, name, "a-f0-s0, b-f0-s0, b-f1-s0", "not in a-f1-s0")


def test_variants_on_other_folds(rows):
    gone = (rows["variant"] == "b") & (rows["fold"] == 1)
    refused(rows[~gone], "a was tested on fold 0 with seed 0, fold 1", "b on fold 0", "b-f0-s0")


def test_variants_by_other_seeds():
    rows = fake_rows({"a": (1, 50), "b": (2, 50)}, seeds=2)
    gone = (rows["variant"] == "b") & (rows["seed"] == 1)
    refused(rows[~gone], "a was tested on fold 0 with seed 0, fold 0 with seed 1, b on fold 0")


def test_variants_on_other_patients(rows):
    gone = (rows["variant"] == "b") & (rows["query"] == "5")
    refused(rows[~gone], "other patients of fold 1", "b-f1-s0")


def test_many_runs_are_counted():
    many = fake_rows({f"v{n}": (n, 50) for n in range(6)}, organs=("liver",))
    card = many["card"].where(many["variant"] == "v5", "sabs")
    refused(many.assign(card=card), "v0-f0-s0, v1-f0-s0, v2-f0-s0 and 2 more", "v5-f0-s0")


def test_cards_are_never_mixed_even_where_they_vary():
    """Patient 1 of one data set is not patient 1 of another."""
    rows = fake_rows({"a": (1, 50), "b": (2, 50)})
    card = rows["variant"].map({"a": "chaos_t2", "b": "sabs"})
    refused(rows.assign(card=card).assign(**{"data.card": card}), "the card differs")


def test_one_run_evaluated_with_more_shots_costs_once_in_each_variant():
    rows = fake_rows({"shots=1": (1, 50), "shots=3": (3, 55)}, column="evaluate.shots")
    more = rows["variant"] == "shots=3"
    rows.loc[:, "run"] = "shots-0123456789"
    rows.loc[more, "shots"] = 3
    rows.loc[more & (rows["protocol"] != ""), "support"] += "+9+8"
    assert (rows["metric"] == "episode_seconds").sum() == 2
    check_comparable(rows)
    refused(pd.concat([rows, rows[rows["metric"] == "episode_seconds"]]), "is there 2 times")
