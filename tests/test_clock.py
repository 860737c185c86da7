"""The clock of the machine may say what it likes."""

import os
import time

import pytest
from trials import assert_same, end_of, killed, log_of, run

from catnet.runs import read_json_lines

YEAR = 365 * 24 * 3600
WAYS = {
    "years ahead": lambda now, n: now + 30 * YEAR,
    "years back": lambda now, n: now - 30 * YEAR,
    "backward": lambda now, n: now - 3600 * n,
    "to and fro": lambda now, n: now + (-1) ** n * YEAR,
    "stopped": lambda now, n: 1e9,
}


@pytest.fixture
def clock(monkeypatch):
    """`clock(way)`: what `time.time` says from now on."""
    real = time.time

    def use(way):
        calls = []

        def wrong():
            calls.append(None)
            return WAYS[way](real(), len(calls))

        monkeypatch.setattr(time, "time", wrong)

    return use


@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_the_same_by_any_clock(way, tiny, clock):
    straight = run(tiny("name=straight"))
    again = killed(tiny("name=again"), stop=5)
    clock(way)
    run(again)
    assert (again.model / "model.safetensors").read_bytes() == (
        straight.model / "model.safetensors"
    ).read_bytes()
    assert log_of(again) == log_of(straight)
    seconds = [line["seconds"] for line in read_json_lines(again.path / "timing.jsonl")]
    assert all(0 <= value < 3600 for value in seconds)


def test_files_of_the_future_count_like_others(tiny):
    straight = run(tiny("name=straight"))
    again = killed(tiny("name=again"), stop=5)
    for number, path in enumerate(sorted(again.path.rglob("*"))):
        if "tensorboard" not in path.parts:
            os.utime(path, (time.time() + (-1) ** number * 9 * YEAR,) * 2)
    assert_same(straight, run(again))


def test_prepared_data_is_not_judged_by_its_age(tiny, tiny_home, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    command = ["prepare", "tiny", "--raw", tiny_home / "raw"]
    assert end_of(command, capsys)[0] == 0
    for path in (tmp_path / "data").rglob("*"):
        os.utime(path, (0, 0))
    status, out, _ = end_of(command, capsys)
    assert status == 0
    assert "6 cases in" in out
    assert "0 of them prepared now" in out
