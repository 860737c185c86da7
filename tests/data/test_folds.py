from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from catnet.cli import main
from catnet.data.card import load_card
from catnet.data.folds import (
    fold_indices,
    shortage,
    split,
    support_sets,
    training_slices,
)
from catnet.data.prepare import prepare
from catnet.data.store import Case, open_cases
from catnet.errors import UserError

DATASETS = Path(__file__).parents[2] / "datasets"
ORGANS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
CHAOS = [1, 2, 3, 5, 8, 10, 13, 15, 19, 20, 21, 22, 31, 32, 33, 34, 36, 37, 38, 39]
PUBLISHED = [
    [1, 2, 3, 5, 8],
    [8, 10, 13, 15, 19],
    [19, 20, 21, 22, 31],
    [31, 32, 33, 34, 36],
    [36, 37, 38, 39, 1],
]


class Named(Case):
    """A case that is a name alone."""

    name = property(lambda self: self.folder.name)


def named(tmp_path, names):
    return tuple(Named(tmp_path / str(name)) for name in names)


def numbers(cases):
    return [int(case.name) for case in cases]


@pytest.fixture
def twenty(tmp_path):
    return named(tmp_path, CHAOS)


def all_sets(card, cases, *, policy, index=2, shots=1):
    """Supports and queries of every fold."""
    for fold in range(len(fold_indices(card, len(cases)))):
        tested = split(card, cases, fold).tested
        yield from support_sets(tested, policy=policy, index=index, shots=shots)


def test_chaos_folds_are_the_published_lists(twenty):
    card = load_card("chaos_t2")
    for fold, expected in enumerate(PUBLISHED):
        found = split(card, twenty, fold)
        assert numbers(found.tested) == expected
        assert numbers(found.training) == sorted(set(CHAOS) - set(expected))


@pytest.mark.parametrize(
    ("card", "count"), [("chaos_t2", 20), ("sabs", 30), ("cmr", 35), ("sabs", 23), ("sabs", 10)]
)
def test_every_case_is_a_query_exactly_once_under_extra(tmp_path, card, count):
    cases = named(tmp_path, range(1, count + 1))
    sets = list(all_sets(load_card(card), cases, policy="extra"))
    asked = Counter(number for _, queries in sets for number in numbers(queries))
    assert asked == dict.fromkeys(range(1, count + 1), 1)
    assert len(sets) == 5
    assert all(len(supports) == 1 for supports, _ in sets)


@pytest.mark.parametrize(("folds", "count"), [(5, 30), (5, 23), (4, 9), (2, 4), (3, 100)])
def test_counted_folds_are_even_and_borrow_the_next_ones_first_case(make_card, folds, count):
    found = fold_indices(make_card(folds=folds), count)
    blocks = [fold[:-1] for fold in found]
    assert [index for block in blocks for index in block] == list(range(count))
    assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    assert [fold[-1] for fold in found] == [block[0] for block in blocks[1:] + blocks[:1]]


@pytest.mark.parametrize("count", [20, 23, 30])
def test_no_tested_case_trains(make_card, tmp_path, count):
    cases = named(tmp_path, range(count))
    for fold in range(5):
        found = split(make_card(folds=5), cases, fold)
        assert not {*numbers(found.tested)} & {*numbers(found.training)}
        assert sorted(numbers(found.tested + found.training)) == list(range(count))


def test_an_index_counts_within_the_fold_in_ascending_order(twenty):
    tested = split(load_card("chaos_t2"), twenty, 4).tested
    supports = {}
    for index in range(5):
        [(support, queries)] = support_sets(tested, policy="index", index=index, shots=1)
        supports[index] = numbers(support)
        assert sorted(numbers(support + queries)) == [1, 36, 37, 38, 39]
    assert supports == {0: [1], 1: [36], 2: [37], 3: [38], 4: [39]}


def test_with_an_index_some_cases_are_asked_twice_and_others_never(twenty):
    sets = all_sets(load_card("chaos_t2"), twenty, policy="index", index=2)
    asked = Counter(number for _, queries in sets for number in numbers(queries))
    assert sum(asked.values()) == 20
    assert len(asked) == 15
    assert Counter(asked.values()) == {1: 10, 2: 5}


def test_each_case_supports_in_turn(twenty):
    tested = split(load_card("chaos_t2"), twenty, 4).tested
    sets = support_sets(tested, policy="each", index=0, shots=1)
    assert [numbers(supports) for supports, _ in sets] == [[1], [36], [37], [38], [39]]
    assert numbers(sets[2][1]) == [38, 39, 1, 36]


def test_more_shots_are_more_support_cases(twenty):
    tested = split(load_card("chaos_t2"), twenty, 4).tested  # 36 37 38 39 and 1
    expected = {"extra": ([1, 39], [36, 37, 38]), "index": ([38, 39], [1, 36, 37])}
    for policy, (supports, queries) in expected.items():
        [found] = support_sets(tested, policy=policy, index=3, shots=2)
        assert (numbers(found[0]), numbers(found[1])) == (supports, queries)
    sets = support_sets(tested, policy="each", index=0, shots=3)
    assert [numbers(supports) for supports, _ in sets][3] == [38, 39, 1]
    assert all(len(supports) == 3 and len(queries) == 2 for supports, queries in sets)
    assert all(not {*supports} & {*queries} for supports, queries in sets)


def test_natural_order_of_names_within_a_fold(tmp_path):
    tested = named(tmp_path, ["10", "9", "100", "1"])
    [(supports, queries)] = support_sets(tested, policy="index", index=1, shots=1)
    assert (numbers(supports), numbers(queries)) == ([9], [10, 100, 1])


def test_what_cannot_be_split_is_said(tmp_path, make_card, twenty):
    card = load_card("chaos_t2")
    with pytest.raises(UserError, match=r"data\.fold 5 is not there; card chaos_t2 has 0 to 4"):
        split(card, twenty, 5)
    with pytest.raises(UserError, match=r"fold 4 .* names case number 17, but 17 are prepared"):
        split(card, twenty[:17], 4)
    with pytest.raises(UserError, match=r"asks for 5 folds, but 9 cases .* at least 10"):
        split(make_card(folds=5), named(tmp_path, range(9)), 0)
    tested = split(card, twenty, 0).tested
    with pytest.raises(UserError, match=r"support_index 5 is not in a fold of 5"):
        support_sets(tested, policy="index", index=5, shots=1)
    for policy in ("extra", "index", "each"):
        with pytest.raises(UserError, match=r"evaluate\.shots 5 leaves no query"):
            support_sets(tested, policy=policy, index=0, shots=5)


def test_training_slices_of_a_hand_case(make_card, make_case):
    label = np.zeros((5, 32, 32), dtype=np.uint16)
    label[1:4, 4:9] = 1
    label[3:, 12:19] = 4
    label[0, 20:25] = 7  # no organ of the card
    case = make_case(make_card(), "1", label)

    def kept(setting, group):
        organs = make_card().tested_organs(group)
        return training_slices(case, setting=setting, organs=organs).tolist()

    assert kept("1", None) == [True] * 5
    assert kept("2", None) == [True, False, False, False, False]
    assert kept("2", "right") == [True, False, False, False, True]
    assert kept("2", "left") == [True, True, True, False, False]
    assert kept("2-as-published", None) == [True, True, True, False, True]
    assert kept("2-as-published", "left") == kept("2", "left")


@pytest.fixture(scope="session")
def chaos_cases(chaos, tmp_path_factory):
    """The card and the 20 real cases, prepared once."""
    card = load_card(str(DATASETS / "chaos_t2.yml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(tmp_path_factory.mktemp("chaos")))
        assert [fresh for _, _, fresh in prepare(card, chaos)] == [True] * 20
        return card, open_cases(card)


@pytest.mark.parametrize(
    ("setting", "group", "removed"),
    [
        ("1", None, 0),
        ("2", None, 558),
        ("2", "kidneys", 324),
        ("2", "upper", 463),
        ("2-as-published", None, 88),
    ],
)
def test_slices_that_setting_2_removes_from_chaos(chaos_cases, setting, group, removed):
    card, cases = chaos_cases
    organs = card.tested_organs(group)
    kept = [training_slices(case, setting=setting, organs=organs) for case in cases]
    assert sum(map(len, kept)) == 718
    assert sum((~slices).sum() for slices in kept) == removed


def test_chaos_is_prepared_without_interpolation(chaos_cases, chaos):
    _, cases = chaos_cases
    assert numbers(cases) == CHAOS
    assert {case.image.shape[1:] for case in cases} == {(256, 256)}
    case = cases[10]
    raw = nib.load(chaos / f"label_{case.name}.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(raw.affine), nib.orientations.axcodes2ornt("LAS")
    )
    turned = nib.orientations.apply_orientation(np.asarray(raw.dataobj), turn)
    np.testing.assert_array_equal(case.label, turned.transpose(2, 1, 0))
    means = {organ: np.argwhere(case.label == n).mean(axis=0) for organ, n in ORGANS.items()}
    assert means["right kidney"][2] < 128 < means["left kidney"][2]  # columns run to the left
    assert means["liver"][2] < 128 < means["spleen"][2]


def test_too_few_cases_are_said_as_the_folds_would_say_them(make_card, tmp_path):
    for folds, needed in ((2, 4), (5, 10), ([[0, 1, 2], [2, 3, 0]], 4)):
        card = make_card(folds=folds)
        assert shortage(card, needed) == ""
        assert f"need {needed} cases" in shortage(card, needed - 1)
        cases = named(tmp_path, range(needed - 1))
        with pytest.raises(UserError):
            [split(card, cases, fold) for fold in range(2)]


def test_commands_say_that_cases_are_few(raw, write_card, capsys):
    path = write_card()
    main(["prepare", str(path), "--raw", str(raw)])
    said = "note: the folds of card tiny need 4 cases, and 3 cases are there: 0 of its 2 folds"
    assert said in capsys.readouterr().out
    main(["phantom", "phantom_mr", "--raw", str(raw.parent / "phantoms"), "--cases", "1"])
    assert "and 1 case is there" in capsys.readouterr().out
