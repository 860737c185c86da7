import errno
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from trials import complaint, end_of, raising

from catnet.cli import main
from catnet.commands.train import STOPPED

MISTAKES = {
    "missing card": ("prepare nothing --raw {raw}", "card 'nothing' is not in .*there: tiny"),
    "missing card file": ("prepare nothing.yml --raw {raw}", "nothing.yml: no such file"),
    "a card that is a folder": ("prepare {home}/folder.yml --raw {raw}", "cannot be read"),
    "missing raw folder": ("prepare tiny --raw {home}/nowhere", "{home}/nowhere"),
    "raw folder without scans": ("prepare tiny --raw {home}/empty", "{home}/empty"),
    "raw folder not named": ("prepare tiny", "--raw; see `catnet prepare --help`"),
    "no cases at a time": ("prepare tiny --raw {raw} --jobs 0", "--jobs: 0 is under 1; see"),
    "a card without fetch": ("fetch tiny --raw {home}/f", "card tiny has no fetch; .*made by the"),
    "an action that is none": (
        "cards old {raw}",
        "invalid choice: 'old'.*see `catnet cards --help`",
    ),
    "a folder of nothing": ("cards new {home}/empty", "0 images and 0 labels that do not pair up"),
    "card not named": ("supervoxels", "CARD; see `catnet supervoxels --help`"),
    "no number": ("phantom tiny --raw {home}/p --cases many", "invalid integer value: 'many'; see"),
    "no cases": ("phantom tiny --raw {home}/p --cases 0", "--cases: 0 is under 1; see"),
    "negative seed": ("phantom tiny --raw {home}/p --seed -1", "--seed: -1 is under 0; see"),
    "unknown option": ("train {file} --fast", "unrecognized arguments: --fast; see"),
    "missing run file": ("train {home}/none.yml", "none.yml: no such file; check the path"),
    "a run file that is a folder": ("train {home}", "cannot be read"),
    "typo in a setting": ("train {file} model.round=3", "did you mean 'rounds'?"),
    "typo in a group": ("train {file} modle.rounds=3", "did you mean 'model'?"),
    "no value": ("train {file} model.rounds", "write key=value, such as model.rounds=3"),
    "no key": ("train {file} =3", "write key=value, such as model.rounds=3"),
    "too deep": ("train {file} model.rounds.first=3", "model.rounds"),
    "a word for a number": ("train {file} model.rounds=many", "model.rounds: .*not 'many'"),
    "a setting of another network": (
        "train {file} model.name=panet",
        "rounds is a setting of catnet, .* name=panet; leave it out, or at its default 4",
    ),
    "an unknown network": ("train {file} model.name=unet", "model.name: .*'qnet', not 'unet'"),
    "a number out of range": ("train {file} model.rounds=99", "model.rounds: .*not 99"),
    "an unknown value": ("train {file} train.optimizer=adam", "train.optimizer: .*'adamw'"),
    "an unknown mechanism": ("train {file} model.attention=maskd", "masked"),
    "an unknown option of it": ("train {file} model.attention_options={{a: 1}}", "a"),
    "an unknown encoder": ("train {file} model.encoder=resnet51", "'resnet51' .*try tu-resnet50"),
    "missing weights": ("train {file} model.encoder_weights={home}/w.pth", "no such weight file"),
    "a fold that is not there": ("train {file} data.fold=7", "data.fold 7 is not .* has 0 to 1"),
    "an unknown group": ("train {file} data.group=lungs", "'lungs' is not in card tiny"),
    "organs without a group": ("train {file} data.labels=organs", "needs data.group"),
    "nothing large enough": ("train {file} data.min_pixels=9999", "lower data.min_pixels"),
    "a card that is not there": ("train {file} data.card=none", "card 'none' is not in"),
    "no run at all": ("evaluate evaluate.shots=1", "no run is named; give a folder"),
    "nothing at all": ("evaluate", "RUN; see `catnet evaluate --help`"),
    "no such run": ("evaluate nothing-0123456789", "not the folder of a run"),
    "a folder that is no run": ("evaluate {home}", "not the folder of a run"),
    "a run that has not ended": ("evaluate {begun}", "training has not ended"),
    "another training": ("evaluate {run} train.steps=7", "would change what was trained"),
    "too many shots": ("evaluate {run} evaluate.shots=3", "evaluate.shots 3 leaves no query"),
    "too high an index": (
        "evaluate {run} evaluate.support=index evaluate.support_index=5",
        "evaluate.support_index 5 is not in a fold of 3",
    ),
    "a run twice": ("evaluate {run} {run}", "a run is named twice"),
    "a protocol twice": (
        "evaluate {run} evaluate.protocols=[EP1,EP1]",
        "protocols names one twice",
    ),
    "an unknown protocol": ("evaluate {run} evaluate.protocols=[EP3]", "evaluate.protocols.0"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_ends_with_one_sentence(mistake, places, capsys):
    command, hint = MISTAKES[mistake]
    assert re.search(places(hint), complaint(shlex.split(places(command)), capsys))


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("trian", "'trian' is not a command; did you mean 'train'?"),
        ("supervoxel", "did you mean 'supervoxels'?"),
        ("xyz", "known are phantom, prepare, "),
    ],
)
def test_an_unknown_command_is_guessed(command, hint, capsys):
    assert hint in complaint([command], capsys)


def test_a_gpu_where_there_is_none(places, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in ("train {file}", "train {file} machine.devices=2", "evaluate {run}"):
        words = shlex.split(places(command + " machine.accelerator=gpu"))
        assert "but torch sees 0 GPUs here; use cpu or auto" in complaint(words, capsys)


@pytest.mark.parametrize("devices", [1, 2])
def test_data_that_was_not_prepared(devices, places, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "none"))
    train = shlex.split(places(f"train {{file}} machine.devices={devices}"))
    for command in (train, ["supervoxels", "tiny"], ["evaluate", places("{run}")]):
        assert "no prepared case; run `catnet prepare tiny --raw DIR`" in complaint(command, capsys)


def test_supervoxels_that_were_not_cut(places, capsys, monkeypatch, tmp_path, tiny_home):
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    for path in (tmp_path / "data" / "tiny").glob("*/supervoxels.*"):
        path.unlink()
    said = complaint(["train", places("{file}")], capsys)
    assert "has no supervoxels; run `catnet supervoxels tiny`" in said


@pytest.mark.parametrize(
    ("home", "command"),
    [
        ("CATNET_DATA", "prepare tiny --raw {raw}"),
        ("CATNET_RUNS", "train {file}"),
        ("CATNET_X", "phantom tiny --raw {home}/file/raw"),
    ],
)
def test_a_place_where_nothing_can_be_written(home, command, places, capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("a regular file")
    monkeypatch.setenv(home, str(tmp_path / "file" / "below"))
    said = complaint(shlex.split(places(command)), capsys)
    assert str(tmp_path / "file") in said
    assert "Not a directory" in said


@pytest.fixture
def small_disk():
    """No file can grow over so many bytes, as on a disk that is full."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.parametrize(
    ("command", "limit"),
    [
        ("phantom tiny --raw {home}/new --cases 1", 5000),
        ("prepare tiny --raw {raw}", 5000),
        ("supervoxels tiny", 5000),
        ("train {file} name=new", 1_000_000),
        ("train {file} name=new", 200),
        ("evaluate {run} evaluate.baselines=[]", 300),
    ],
)
def test_a_full_disk(command, limit, places, capsys, small_disk, tmp_path, tiny_home, monkeypatch):
    shutil.copytree(tiny_home / "data", tmp_path / "data")
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    missing = {"prepare": "meta.json", "supervoxels": "supervoxels.json"}.get(command.split()[0])
    for path in (tmp_path / "data" / "tiny").glob(f"*/{missing}"):
        path.unlink()
    words = shlex.split(places(command))
    small_disk(limit)
    said = complaint(words, capsys)
    assert re.search(r"cannot be written \(.*\); free space on its disk, or choose", said)
    hidden = {path.name for path in tmp_path.rglob(".*")}
    assert hidden <= {".lock"}


def test_an_error_of_the_system_is_one_sentence(capsys, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x.npy")
    for error, expected in (
        (full, "/data/x.npy: No space left on device; make room, or choose another folder"),
        (OSError("strange"), "strange; make room, or choose another folder"),
    ):
        monkeypatch.setattr("catnet.commands.supervoxels.run", raising(error))
        assert complaint(["supervoxels", "tiny"], capsys) == expected


def test_our_own_bugs_show_a_traceback(monkeypatch):
    monkeypatch.setattr("catnet.commands.supervoxels.run", raising(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["supervoxels", "tiny"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["supervoxels", "tiny"], "the same command goes on from here"),
        (["doctor"], "the same command begins anew"),
        (["evaluate", "a-run"], "the same command evaluates the one at hand from its beginning"),
        (["export", "a-run", "there"], "and give the same command again"),
    ],
)
def test_control_c_is_130(given, said, capsys, monkeypatch):
    monkeypatch.setattr(f"catnet.commands.{given[0]}.run", raising(KeyboardInterrupt()))
    status, out, err = end_of(given, capsys)
    assert (status, out) == (130, "")
    assert err.startswith("catnet: stopped; ")
    assert err.endswith(f"{said}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c_while_a_process_trains(number, tiny, tiny_home):
    folder = tiny("train.steps=5000")
    command = [sys.executable, "-m", "catnet", "train", tiny_home / "tiny.yml", "train.steps=5000"]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    signal.signal(signal.SIGINT, before)
    try:
        while not (folder.path / "log.jsonl").is_file():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, number)  # its loader process is told too
        _, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert err == f"catnet: stopped; {STOPPED}\n"


def test_the_home_of_nobody_is_said(monkeypatch, capsys):
    monkeypatch.setenv("CATNET_DATA", "~nosuchuser/x")
    sentence = complaint(["check", "phantom_mr"], capsys)
    assert "~nosuchuser/x: no such user's home, which CATNET_DATA names" in sentence
