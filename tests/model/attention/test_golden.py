"""The golden folder itself: nothing in it goes unread, and without one nothing passes."""

import os
import re
import subprocess
import sys

import pytest
from golden import FOLDER, MODULES, OURS

FOUND = sorted(path.name for path in FOLDER.iterdir() if path.is_dir())
TABLE = re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", (OURS / "README.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("folder", FOUND)
def test_every_folder_is_read_by_a_parity_test(folder):
    assert folder in MODULES, (
        f"{FOLDER / folder}: no parity test reads it; its name is none of those in the table of "
        "tests/golden/README.md"
    )
    assert list((FOLDER / folder).glob("*.npz")), f"{FOLDER / folder}: holds no numbers"


def test_the_table_lists_what_lies_here():
    held = {path.name: len(list(path.glob("*.npz"))) for path in OURS.iterdir() if path.is_dir()}
    assert {name: int(count) for name, count in TABLE} == held
    assert set(held) == MODULES


def test_a_folder_that_is_not_there_fails_instead_of_skipping(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", "import golden"],
        cwd=os.path.dirname(__file__),
        env=os.environ | {"CATNET_GOLDEN": str(tmp_path / "nowhere")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "nowhere: no such folder" in done.stderr
