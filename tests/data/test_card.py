from pathlib import Path

import pytest

from catnet.data.card import load_card
from catnet.errors import UserError

DATASETS = Path(__file__).parents[2] / "datasets"
CARDS = sorted(path.stem for path in DATASETS.glob("*.yml"))


def refusal(path):
    with pytest.raises(UserError) as caught:
        load_card(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


def test_the_cards_of_the_project_are_there():
    assert {"chaos_t2", "cmr", "phantom_ct", "phantom_mr", "sabs"} <= set(CARDS)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_loads_under_the_name_of_its_file(name):
    card = load_card(name)
    assert card == load_card(str(DATASETS / f"{name}.yml"))
    assert card.name == name
    assert {card.image.count("{case}"), card.label.count("{case}")} == {1}
    assert all(card.tested_organs(group) for group in (None, *card.groups))


def test_an_unknown_card_gets_the_list():
    with pytest.raises(UserError, match=r"'chaos' is not in .*chaos_t2.*CATNET_CARDS"):
        load_card("chaos")


def test_a_card_that_is_a_path_and_not_there(tmp_path):
    assert "no such file" in refusal(tmp_path / "mine.yml")


def test_a_folder_without_cards(tmp_path, monkeypatch):
    monkeypatch.setenv("CATNET_CARDS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="there: none"):
        load_card("chaos_t2")


def test_the_tiny_card_is_right(write_card, make_card):
    assert load_card(str(write_card())) == make_card()


def test_no_spacing_at_all_says_that_null_is_of_an_axis(make_card):
    with pytest.raises(ValueError, match=r"three axes, or null for one .* \[null, null, 3.0\]"):
        make_card(spacing=None)


WRONG = {
    "typo": ({"orientation": None, "orientaton": "LAS"}, ["orientaton", "'orientation'"]),
    "typo in a group": ({"clip": {"percentile": [0, 99]}}, ["clip.percentile", "'percentiles'"]),
    "missing": ({"clip": None}, ["clip is missing; add it"]),
    "missing below": ({"supervoxels": {}}, ["supervoxels.min_size is missing"]),
    "name with a path": ({"name": "../tiny"}, ["name", "pattern"]),
    "modality": ({"modality": "PET"}, ["modality", "'CT' or 'MR'", "'PET'"]),
    "no case": ({"image": "image.nii.gz"}, ["image", "{case} exactly once"]),
    "two cases": ({"label": "{case}/{case}.nii"}, ["label", "{case} exactly once"]),
    "absolute": ({"image": "/raw/{case}.nii"}, ["image", "--raw", "without a leading /"]),
    "image is label": ({"label": "image_{case}.nii.gz"}, ["image and label", "same", "mend"]),
    "two letters": ({"orientation": "LA"}, ["orientation", "three letters", "LAS"]),
    "one axis twice": ({"orientation": "LRS"}, ["orientation", "three letters"]),
    "other order": ({"orientation": "SAL"}, ["orientation", "R or L, A or P, S or I"]),
    "small letters": ({"orientation": "las"}, ["orientation", "three letters"]),
    "zero spacing": ({"spacing": [1.0, 0.0, None]}, ["spacing", "from 0.01"]),
    "negative spacing": ({"spacing": [1.0, -1.0, 2.0]}, ["spacing", "from 0.01"]),
    "spacing in meters": ({"spacing": [1.0, 1.0, 5000]}, ["spacing", "mm"]),
    "NaN spacing": ({"spacing": [float("nan"), 1.0, 1.0]}, ["spacing.0", "finite"]),
    "one spacing": ({"spacing": 2.0}, ["spacing", "not 2.0"]),
    "two spacings": ({"spacing": [2.0, 2.0]}, ["spacing.2 is missing"]),
    "text as spacing": ({"spacing": [2.0, 2.0, "x"]}, ["spacing.2", "number", "'x'"]),
    "no multiple of 32": ({"size": [256, 250]}, ["size", "multiples of 32"]),
    "zero size": ({"size": [0, 256]}, ["size", "multiples of 32"]),
    "negative size": ({"size": [-32, 32]}, ["size", "multiples of 32"]),
    "half a voxel": ({"size": [32.5, 32]}, ["size.0", "32.5"]),
    "three sizes": ({"size": [32, 32, 32]}, ["size", "at most 2"]),
    "two clips": ({"clip": {"window": [0, 1], "percentiles": [0, 99]}}, ["clip", "either"]),
    "no clip": ({"clip": {}}, ["clip", "window: [low, high]"]),
    "clip upside down": ({"clip": {"window": [275, -125]}}, ["clip", "275", "below"]),
    "clip of nothing": ({"clip": {"window": [5, 5]}}, ["clip", "below"]),
    "clip to infinity": ({"clip": {"window": [0, float("inf")]}}, ["clip.window.1", "finite"]),
    "NaN clip": ({"clip": {"window": [float("nan"), 1]}}, ["clip.window.0", "finite"]),
    "percentile 101": ({"clip": {"percentiles": [0, 101]}}, ["clip", "between 0 and 100"]),
    "percentile -1": ({"clip": {"percentiles": [-1, 99]}}, ["clip", "between 0 and 100"]),
    "no organs": ({"organs": {}}, ["organs", "at least 1"]),
    "organs as a list": ({"organs": ["liver"]}, ["organs", "dictionary"]),
    "organ 0": ({"organs": {"liver": 0}, "groups": {}}, ["organs.liver", "not 0"]),
    "organ 70000": ({"organs": {"liver": 70000}, "groups": {}}, ["organs.liver", "65535"]),
    "organ in words": ({"organs": {"liver": "one"}}, ["organs.liver", "integer", "'one'"]),
    "organ named by a number": ({"organs": {1: 1}}, ["organs.1", "string"]),
    "number twice": ({"organs": {"liver": 1, "spleen": 1}}, ["number stands twice", "organs"]),
    "number in both": ({"other_labels": [4]}, ["number stands twice", "other_labels"]),
    "number twice in others": ({"other_labels": [7, 7]}, ["number stands twice"]),
    "unknown organ": ({"groups": {"all": ["liver", "kidney"]}}, ["groups.all", "'kidney'"]),
    "empty group": ({"groups": {"nobody": []}}, ["groups.nobody", "at least 1"]),
    "group of letters": ({"groups": {"right": "liver"}}, ["groups.right", "'liver'"]),
    "supervoxels": ({"supervoxels": {"min_size": 0}}, ["supervoxels.min_size", "not 0"]),
    "one fold": ({"folds": 1}, ["folds", "from 2"]),
    "folds in words": ({"folds": "five"}, ["folds", "from 2", "[[0, 1, 2]"]),
    "no folds": ({"folds": []}, ["folds", "from 2"]),
    "flat folds": ({"folds": [0, 1, 2]}, ["folds", "lists such as"]),
    "fold of one": ({"folds": [[0, 1], [2]]}, ["folds", "two cases"]),
    "empty fold": ({"folds": [[0, 1], []]}, ["folds", "two cases"]),
    "case twice": ({"folds": [[0, 1], [2, 2]]}, ["folds", "[2, 2] names a case twice"]),
    "case -1": ({"folds": [[0, -1]]}, ["folds", "[0, -1]", "count from 0"]),
    "case by name": ({"folds": [["a", "b"]]}, ["folds", "indices of cases"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_card_gets_one_sentence_with_file_key_and_fix(write_card, name):
    changes, words = WRONG[name]
    sentence = refusal(write_card(**changes))
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name: tiny\norgans: {liver: 1\nsize: [32, 32]\n", ["line 3", "mend that line"]),
        (b"organs:\n  liver: 1\n  liver: 2\n", ["line 3", "'liver' stands twice"]),
        (b"name: !!python/object/apply:os.getcwd []\n", ["line 1", "python/object"]),
        (b"", ["key: value"]),
        (b"\x1f\x8b\x08\x00\xff\xfe", ["cannot be read"]),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, content, words):
    path = tmp_path / "card.yml"
    path.write_bytes(content)
    sentence = refusal(path)
    assert all(word in sentence for word in words), sentence


def test_organs_of_a_group_keep_their_numbers(make_card):
    card = make_card()
    assert card.tested_organs(None) == {"liver": 1, "spleen": 4}
    assert card.tested_organs("left") == {"spleen": 4}
    with pytest.raises(UserError, match=r"data\.group 'up' .* right, left"):
        card.tested_organs("up")
    with pytest.raises(UserError, match="it has none"):
        make_card(groups={}).tested_organs("up")


PREPARING = {
    "orientation": "RAS",
    "spacing": [2.0, 2.0, None],
    "clip": {"percentiles": [0, 99]},
    "body_threshold": 5.0,
    "size": [64, 32],
    "organs": {"liver": 2, "spleen": 4},
    "label_values": {"liver": 63},
}
DECIDING = {
    "name": "other",
    "folds": 3,
    "groups": {"right": ["spleen"]},
    "supervoxels": {"min_size": 11},
    "cases": "0[0-4]*",
}
NEITHER = {
    "title": "t",
    "source": "s",
    "license": "l",
    "citation": "c",
    "modality": "CT",
    "image": "{case}.nii",
    "label": "{case}_label.nii",
    "other_labels": [9],
    "fetch": {"url": "https://example.org/raw.zip", "checksum": "sha256:" + "0" * 64},
}


@pytest.mark.parametrize("key", [*PREPARING, *DECIDING, *NEITHER])
def test_hashes_change_with_what_they_stand_for(make_card, key):
    changes = {**PREPARING, **DECIDING, **NEITHER}
    card, other = make_card(), make_card(**{key: changes[key]})
    assert other != card
    assert (other.preparation() != card.preparation()) == (key in PREPARING)
    assert (other.identity() != card.identity()) == (key not in NEITHER)


def test_every_key_of_the_card_is_in_the_test_above(make_card):
    assert {*PREPARING, *DECIDING, *NEITHER} == set(type(make_card()).model_fields)


def test_hashes_know_no_order_of_keys(make_card):
    turned = make_card(organs={"spleen": 4, "liver": 1})
    assert turned.preparation() == make_card().preparation()
    assert turned.identity() == make_card().identity()
