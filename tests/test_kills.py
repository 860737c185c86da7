"""Killed at any moment, every command ends as if nothing had happened when it is given again.

Kills fall at random moments of a command's work, by a fixed seed; CATNET_KILLS says how many.
"""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open

FREE = {  # what tells of the machine, or of the attempts
    *("timing.jsonl", "cost.json", "console.log", ".lock", ".lock.json", ".rows.csv.lock"),
}
COST = {"episode_seconds", "memory_mib"}
QUICK = (
    *("evaluate.protocols=[EP2]", "evaluate.baselines=[copy]", "train.steps=6"),
    *("machine.checkpoint_every=1", "machine.picture_every=4"),
)
SMALL = ("train.steps=3", "evaluate.pictures=no", "evaluate.predictions=no")
SHARE = {"prepare": 4, "supervoxels": 3, "train": 7, "evaluate": 5, "sweep": 3, "report": 3}
QUICKLY = sum(SHARE.values())


@pytest.fixture(scope="module")
def nursery(tiny_home, tmp_path_factory):
    """`nursery(words, home, after=None)`: do a command in a child, and kill it after a while."""
    command = [sys.executable, str(Path(__file__).with_name("nursery.py"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    threads = {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=os.environ | threads, **pipes)
    assert process.stdout.readline() == "ready\n"
    log = tmp_path_factory.mktemp("nursery") / "log"

    def order(words, home, *, after=None):
        environment = {
            "CATNET_DATA": str(home / "data"),
            "CATNET_RUNS": str(home / "runs"),
            "CATNET_CARDS": str(tiny_home / "cards"),
        }
        line = {"words": words, "environment": environment, "after": after, "log": str(log)}
        process.stdin.write(json.dumps(line) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["killed"] or answer["status"] == 0, log.read_text()
        return answer

    yield order
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="module")
def stages(nursery, tiny_home, tmp_path_factory):
    """Every command: its words, the home that it begins in, the one that it leaves, its time."""
    home = tmp_path_factory.mktemp("stages")
    (home / "before-prepare" / "runs").mkdir(parents=True)
    (home / "before-prepare" / "data").mkdir()
    question = yaml.safe_load((tiny_home / "tiny.yml").read_text())
    question |= {"question": "How many?", "vary": {"model.rounds": [0, 1]}}
    (home / "rounds.yml").write_text(yaml.safe_dump(question))
    commands = {
        "prepare": ["prepare", "tiny", "--raw", str(tiny_home / "raw")],
        "supervoxels": ["supervoxels", "tiny"],
        "train": ["train", str(tiny_home / "tiny.yml"), *QUICK],
        "evaluate": ["evaluate", "RUN", *QUICK[:2]],
        "report": ["report", "RUN", *QUICK[:2]],
        "sweep": ["sweep", str(home / "rounds.yml"), *QUICK, *SMALL],
    }
    found, before = {}, home / "before-prepare"
    for name, words in commands.items():
        run = next((path.name for path in (before / "runs").glob("tiny-*")), "")
        words = [run if word == "RUN" else word for word in words]
        after = home / f"after-{name}"
        shutil.copytree(before, after)
        found[name] = (words, before, after, nursery(words, after)["seconds"])
        before = after
    return found


def contents(home):
    """Every file below a home but those that tell of machine and attempts, by its place."""
    found = {}
    for path in sorted(path for path in home.rglob("*") if path.is_file()):
        place = str(path.relative_to(home))
        if "tensorboard" in path.parts:  # its files are named by time and process
            found[str(path.parent.relative_to(home))] = True
        elif "sweeps" in path.parts and path.name in {"rows.csv", "costs.csv"}:
            lines = csv.DictReader(path.read_text().splitlines())
            found[place] = sorted(str(line) for line in lines if line["metric"] not in COST)
        elif "checkpoints" in path.parts:  # in its header the facts have no order
            with safe_open(path, framework="np") as file:
                names = file.keys()
                tensors = {name: file.get_tensor(name).tobytes() for name in names}
                found[place] = (file.metadata(), tensors)
        elif path.name not in FREE:
            found[place] = path.read_bytes()
    return found


def assert_same(home, reference):
    one, other = contents(home), contents(reference)
    assert one.keys() == other.keys()
    assert [place for place in one if one[place] != other[place]] == []


def share(name, total):
    """So many of all kills fall on a command."""
    return -(-total * SHARE[name] // QUICKLY)


KILLS = int(os.environ.get("CATNET_KILLS", QUICKLY))


@pytest.mark.parametrize("total", [KILLS, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SHARE)
def test_killed_at_any_moment(name, total, stages, nursery, tmp_path):
    words, before, after, seconds = stages[name]
    chosen = random.Random(f"{name} {total}")
    kills, round_ = 0, 0
    while kills < share(name, total):
        home = tmp_path / str(round_)
        shutil.copytree(before, home)
        for _ in range(chosen.randint(1, 4)):
            answer = nursery(words, home, after=chosen.uniform(0, seconds))
            kills += answer["killed"]
            if not answer["killed"]:
                break
        nursery(words, home)
        assert_same(home, after)
        shutil.rmtree(home)
        round_ += 1
