"""The script for SLURM, with a scheduler that does at once what it is given."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catnet.question import load_question
from catnet.sweep.store import Sweep

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm.sh"
SBATCH = """#!/usr/bin/env bash
echo "$*" >> "$FAKE/calls"
first=0 last=0
while [ $# -gt 0 ]; do
  case $1 in
    --array=*) range=${1#--array=}; first=${range%-*}; last=${range#*-} ;;
  esac
  shift
done
wrap=$(cat)
for ((task = first; task <= last; task++)); do
  SLURM_ARRAY_TASK_ID=$task bash -c "$wrap" >> "$FAKE/output" 2>&1 || exit 1
done
echo 4711
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """`sbatch` and `srun` on the path; gives the folder where they write down their calls."""
    folder = tmp_path / "fake"
    folder.mkdir()
    catnet = f'#!/usr/bin/env bash\nexec {sys.executable} -m catnet "$@"\n'
    for name, text in (
        ("sbatch", SBATCH),
        ("srun", '#!/usr/bin/env bash\nexec "$@"\n'),
        ("catnet", catnet),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE", str(folder))
    monkeypatch.setenv("SBATCH_ARGS", "--time=1:00:00")
    return folder


@pytest.mark.slow
def test_every_run_is_a_task_of_an_array(asked, fake):
    settings = ["model.rounds=0", "train.steps=2"]
    done = subprocess.run([SCRIPT, asked, *settings], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    array, gather = (fake / "calls").read_text().splitlines()
    assert array == "--parsable --array=1-2 --time=1:00:00"
    assert gather == "--dependency=afterany:4711 --time=1:00:00"
    sweep = Sweep(load_question(asked, settings))
    assert [job.finished for job in sweep.jobs] == [True, True]
    output = (fake / "output").read_text()
    assert output.count("trained: ") == 2
    assert "2 runs of rounds, 2 finished" in output


def test_without_a_question_it_says_what_it_wants():
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.startswith("usage: ")) == (2, True)
