"""Coverage-guided search for a file that a reader has no sentence for."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from targets import TARGETS

from catnet.journal import peak_resident

SECONDS = int(os.environ.get("CATNET_FUZZ_SECONDS", "5"))
HERE = Path(__file__).parent
HANG = 30  # seconds; the search looks every 16, and must not do so while it ends
GUIDED = ("nifti", "card", "settings", "checkpoint")  # the others are near relatives


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 2 + 240)
@pytest.mark.parametrize("name", GUIDED)
def test_no_file_without_a_sentence(name, tmp_path):
    if importlib.util.find_spec("atheris") is None:
        version = ".".join(map(str, sys.version_info[:2]))
        pytest.skip(f"needs atheris, which is not installed (Python {version}; see the dev extra)")
    assert name in TARGETS
    held = peak_resident() >> 20  # a new process begins with the peak of the one that starts it
    limits = [f"-max_total_time={SECONDS}", f"-timeout={HANG}", f"-rss_limit_mb={2048 + held}"]
    paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, HERE / "harness.py", name, tmp_path / "corpus", *limits, "-max_len=4096"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr, done.stderr[-1000:]
    assert not list(tmp_path.glob("crash-*"))
