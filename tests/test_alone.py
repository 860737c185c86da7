"""Two processes in one folder: one works, the other says who does."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from functools import partial

import pytest
from trials import complaint, end_of

from catnet.data.card import load_card
from catnet.errors import UserError
from catnet.files import HOLDER, LOCK, alone, clear_named, held
from catnet.paths import data_home
from catnet.report.document import WRITTEN

HOLD = """
import sys
from pathlib import Path
from catnet.files import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder():
    """`holder(folder)`: another process that works there until it is killed."""
    begun = []

    def hold(folder):
        command = [sys.executable, "-c", HOLD, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        begun.append(subprocess.Popen(command, **pipes))
        assert begun[-1].stdout.readline() == "held\n"
        return begun[-1]

    yield hold
    for process in begun:
        process.kill()
        process.communicate()


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


QUICK = ("evaluate.pictures=false", "evaluate.predictions=false", "evaluate.baselines=[]")


COMMANDS = {
    "train": ("train {file} train.steps=2 name=new", "new"),
    "evaluate": ("evaluate {run} evaluate.pictures=false evaluate.baselines=[]", "run"),
    "prepare": ("prepare tiny --raw {raw}", "data"),
    "supervoxels": ("supervoxels tiny", "data"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_second_one_says_who_the_first_is(name, places, tiny, holder, capsys):
    command, where = COMMANDS[name]
    folder = {
        "new": tiny("name=new", "train.steps=2").path,
        "run": places("{run}"),
        "data": data_home() / "tiny",
    }[where]
    words = shlex.split(places(command))
    process = holder(folder)
    said = complaint(words, capsys)
    who = rf"`-c {folder}` \(process {process.pid} on {socket.gethostname()}, since 20.*\)"
    assert re.fullmatch(
        rf"{folder}: another process is at work here: {who}; wait for it to end", said
    )
    killed(process)  # whoever it is, a dead one stops nobody
    status, _, err = end_of(words, capsys)
    assert status == 0, err


def test_two_reports_into_one_folder(trained, holder, tmp_path, capsys):
    run = trained().path
    end_of(["evaluate", run, *QUICK], capsys)
    process = holder(tmp_path / "pages")
    command = ["report", run, "-o", tmp_path / "pages", *QUICK]
    assert f"(process {process.pid} on " in complaint(command, capsys)
    assert {path.name for path in (tmp_path / "pages").iterdir()} == {LOCK, HOLDER}
    killed(process)
    assert end_of(command, capsys)[0] == 0
    assert (tmp_path / "pages" / "index.html").is_file()


def test_a_lock_ends_with_its_work(tmp_path):
    with alone(tmp_path):
        assert held(tmp_path)
        with pytest.raises(UserError, match=rf"\(process {os.getpid()} on "), alone(tmp_path):
            pass
        assert (tmp_path / HOLDER).is_file()  # the one who lost takes nothing away
    assert not held(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {LOCK}


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", None])
def test_who_it_is_may_be_unreadable(damage, tmp_path):
    with alone(tmp_path):
        (tmp_path / HOLDER).unlink()
        if damage is not None:
            (tmp_path / HOLDER).write_text(damage)
        with (
            pytest.raises(UserError, match="another process is at work here; wait"),
            alone(tmp_path),
        ):
            pass


def test_a_run_that_is_being_trained_is_not_evaluated(places, holder, capsys):
    process = holder(places("{begun}"))
    assert f"process {process.pid} " in complaint(["evaluate", places("{begun}")], capsys)


def test_a_folder_with_a_lock_left_behind_is_empty(trained, holder, tmp_path, capsys):
    killed(holder(tmp_path / "shared"))
    assert (tmp_path / "shared" / HOLDER).is_file()
    command = ["export", trained().path, tmp_path / "shared"]
    status, _, err = end_of(command, capsys)
    assert status == 0, err


def test_the_loser_writes_nothing(places, holder, tiny, tiny_home, capsys):
    folder = tiny("name=new")
    before = (folder.path / "run.yml").read_bytes()
    holder(folder.path)
    complaint(["train", tiny_home / "tiny.yml", "name=new", "machine.log_every=7"], capsys)
    assert (folder.path / "run.yml").read_bytes() == before
    assert load_card(str(folder.path / "card.yml")) == folder.card


def test_what_a_dead_process_had_not_written_to_the_end_is_taken_away(tmp_path):
    (tmp_path / "below").mkdir()
    dead = [tmp_path / ".4194305-rows.csv", tmp_path / "below" / ".4194305-x.nii.gz"]
    kept = [tmp_path / f".{os.getpid()}-rows.csv", tmp_path / "4194305-mine", tmp_path / ".a-b"]
    for path in (*dead, *kept):
        path.write_text("half")
    with alone(tmp_path):
        assert not any(path.exists() for path in dead)
        assert all(path.exists() for path in kept)


def test_files_of_the_user_s_that_are_named_alike_stay(tmp_path):
    """A report, and what predict writes, go into a folder that may hold anything."""
    (tmp_path / "deep").mkdir()
    dead = 2**22 + 1  # no process has such a number
    mine = [tmp_path / f".{dead}-thesis.txt", tmp_path / "deep" / f".{dead}-rows.csv"]
    left = tmp_path / f".{dead}-rows.csv"
    for path in (*mine, left):
        path.touch()
    with alone(tmp_path, clear=partial(clear_named, names=WRITTEN)):
        assert not left.exists()
    assert all(path.exists() for path in mine)
