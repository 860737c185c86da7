"""What does not fit the disk is refused, in words that are right."""

import pytest

from catnet.data import room
from catnet.data.room import check_room, in_words
from catnet.errors import UserError


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0.0 MB"),
        (10, "0.0 MB"),
        (2**20, "1.0 MB"),
        (64 * 2**20, "67.1 MB"),
        (999_000_000, "999.0 MB"),
        (10**9, "1.0 GB"),
        (2**30, "1.1 GB"),
        (25 * 10**9, "25.0 GB"),
        (3 * 10**12, "3000.0 GB"),
    ],
)
def test_a_size_in_words(size, words):
    assert in_words(size) == words


@pytest.mark.parametrize("size", [0, 5, 2 * 10**9])
def test_what_just_fits_is_let_through_and_one_byte_more_is_not(size, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 2 * 10**9})
    asked = []
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: asked.append(path) or usage)
    check_room(tmp_path, size)
    usage.free = size - 1
    with pytest.raises(UserError) as caught:
        check_room(tmp_path, size)
    assert str(caught.value) == (
        f"{tmp_path}: {in_words(size)} are needed and {in_words(size - 1)} are free; free space "
        "on its disk, or choose another folder"
    )
    assert asked == [tmp_path] * 2
