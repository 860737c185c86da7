"""Processes for independent tasks do not outlive the one that waits for them."""

import os
import signal
import subprocess
import sys
import time

from catnet.data.store import is_alive

SCRIPT = """
import os, sys, time
from pathlib import Path
from catnet.data.workers import outcomes

def work(name):
    Path(sys.argv[1], name).write_text(str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    list(outcomes(work, {"a": "a", "b": "b"}, jobs=2))
"""


def wait_for(what, *, seconds=60.0):
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.1)
    return what()


def test_workers_end_with_the_process_that_was_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "pids").mkdir()
    parent = subprocess.Popen([sys.executable, tmp_path / "script.py", tmp_path / "pids"])
    files = [tmp_path / "pids" / name for name in "ab"]
    try:
        assert wait_for(lambda: all(file.is_file() and file.read_text() for file in files))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        pids = [int(file.read_text()) for file in files]
        assert wait_for(lambda: not any(map(is_alive, pids)))
    finally:
        parent.kill()
        for file in (file for file in files if file.is_file() and is_alive(int(file.read_text()))):
            os.kill(int(file.read_text()), signal.SIGKILL)
