"""What was unpacked comes to its place whole, also after a move that was cut off."""

import json
import shutil

import pytest
from trials import raising

from catnet.data.place import (
    clear,
    finish,
    has_begun,
    is_done,
    journal_of,
    move,
    read_names,
    temporary_of,
)
from catnet.errors import UserError


@pytest.fixture
def temporary(tmp_path):
    """Two files and a folder, unpacked and not moved yet."""
    temporary = temporary_of(tmp_path, mark="0123")
    (temporary / "a").mkdir(parents=True)
    (temporary / "a" / "1.txt").write_text("1")
    for name in ("b.txt", "c.txt"):
        (temporary / name).write_text(name)
    return temporary


def begin(temporary):
    """As a move that a kill ended after its first entry."""
    journal_of(temporary).write_text(json.dumps(["a", "b.txt", "c.txt"]))
    (temporary / "a").rename(temporary.parent / "a")


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_all_of_it_moves_and_leaves_a_mark_alone(temporary, tmp_path):
    done = tmp_path / ".done"
    assert not is_done(done)
    move(temporary)
    assert names(tmp_path) == {"a", "b.txt", "c.txt", temporary.name, journal_of(temporary).name}
    finish(temporary, done)
    assert names(tmp_path) == {"a", "b.txt", "c.txt", ".done"}
    assert (tmp_path / "a" / "1.txt").read_text() == "1"
    assert is_done(done)


def test_a_move_that_was_cut_off_is_finished_and_marks_all_of_it(temporary, tmp_path):
    assert not has_begun(temporary)
    begin(temporary)
    assert has_begun(temporary)
    clear(tmp_path)
    assert has_begun(temporary), "it has all that is needed to finish"
    move(temporary)
    assert read_names(journal_of(temporary)) == ["a", "b.txt", "c.txt"]
    assert names(tmp_path) >= {"a", "b.txt", "c.txt"}


def test_nothing_moves_where_something_stands_in_the_place_of_any(temporary, tmp_path):
    (tmp_path / "c.txt").write_text("mine")
    with pytest.raises(UserError, match=r"c\.txt: is there already; move it away"):
        move(temporary)
    assert names(tmp_path) == {"c.txt"}
    assert (tmp_path / "c.txt").read_text() == "mine"


def test_what_stands_in_the_way_of_a_move_that_was_cut_off_loses_nothing(temporary, tmp_path):
    begin(temporary)
    (tmp_path / "c.txt").write_text("mine")
    with pytest.raises(UserError, match=r"c\.txt: is there already"):
        move(temporary)
    assert names(temporary) == {"b.txt", "c.txt"}
    (tmp_path / "c.txt").unlink()
    move(temporary)
    assert (tmp_path / "c.txt").read_text() == "c.txt"


@pytest.mark.parametrize("lost", ["a", "b.txt"])
def test_a_move_of_which_something_was_taken_away_is_cleared(lost, temporary, tmp_path):
    begin(temporary)
    place = tmp_path if lost == "a" else temporary
    (place / lost).rename(tmp_path / "elsewhere")
    assert not has_begun(temporary)
    clear(tmp_path)
    assert names(tmp_path) == {"elsewhere", "a"} - {lost}


def test_what_is_half_cleared_begins_no_move_when_the_rest_comes_back(
    temporary, tmp_path, monkeypatch
):
    begin(temporary)
    (tmp_path / "a").rename(tmp_path / "elsewhere")
    monkeypatch.setattr(shutil, "rmtree", raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        clear(tmp_path)
    (tmp_path / "elsewhere").rename(tmp_path / "a")
    assert not has_begun(temporary)


@pytest.mark.parametrize("text", ["", "[", "3", '{"a": 1}', "[]", None])
def test_a_journal_that_names_nothing_begins_no_move(text, temporary, tmp_path):
    if text is not None:
        journal_of(temporary).write_text(text)
    (tmp_path / "mine.txt").touch()
    assert not has_begun(temporary)
    clear(tmp_path)
    assert names(tmp_path) == {"mine.txt"}


def test_a_journal_without_its_folder_is_cleared(tmp_path):
    temporary = temporary_of(tmp_path, mark="0123")
    journal_of(temporary).write_text('["a"]')
    clear(tmp_path)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("text", "there", "expected"),
    [
        ('["a", "b.txt"]', {"a", "b.txt"}, True),
        ('["a", "b.txt"]', {"b.txt"}, True),  # who took a part away knows that
        ('["a", "b.txt"]', {"c.txt"}, False),
        ("damaged", set(), True),
        ("3", set(), True),
        (None, {"a", "b.txt"}, False),
    ],
)
def test_a_mark_counts_while_anything_of_it_is_there(text, there, expected, tmp_path):
    if text is not None:
        (tmp_path / ".done").write_text(text)
    for name in there:
        (tmp_path / name).touch()
    assert is_done(tmp_path / ".done") == expected
