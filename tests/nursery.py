"""A process that has imported everything; its children do one command each, and may be killed.

It reads orders and writes what became of them, a line of JSON each. A child is a fork: it begins
at once, so that a kill falls into the work and not into the imports.
"""

import json
import os
import signal
import subprocess
import sys
import time

from catnet.cli import COMMANDS, main


class Forked:
    """Stands for `subprocess.Popen` in a sweep, whose jobs are children of the same kind."""

    def __init__(self, command, *, stdin, stdout, stderr, env):
        self.returncode = None
        self.pid = os.fork()
        if self.pid == 0:
            os.environ.clear()
            os.environ.update(env)
            os.dup2(stdout.fileno(), 1)
            os.dup2(stdout.fileno(), 2)
            do(command[command.index("catnet") + 1 :])

    def poll(self):
        if self.returncode is None:
            found, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if found else None
        return self.returncode

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)

    def wait(self):
        while self.poll() is None:
            time.sleep(0.01)
        return self.returncode


def do(words):
    """A command from its first to its last moment; never returns."""
    status = 0
    try:
        main(words)
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        status = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def look_after(order):
    """Fork a child for an order; kill it after `after` seconds if it is still there."""
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        os.environ.update(order["environment"])
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        do(order["words"])
    killed = False
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        seconds = time.monotonic() - begun
        if found:
            code = os.waitstatus_to_exitcode(status)
            return {"status": code, "seconds": seconds, "killed": code == -signal.SIGKILL}
        if order["after"] is not None and seconds >= order["after"] and not killed:
            os.kill(pid, signal.SIGKILL)
            killed = True
        time.sleep(0.001)


if __name__ == "__main__":
    import importlib

    import torch

    for name in COMMANDS:
        importlib.import_module(f"catnet.commands.{name}")
    for name in ("catnet.report.document", "scipy.special", "torch.utils.tensorboard"):
        importlib.import_module(name)
    torch.set_num_threads(1)
    from catnet.sweep import local

    local.subprocess = type("Forking", (), {**vars(subprocess), "Popen": Forked})
    answers = os.fdopen(os.dup(1), "w")
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(look_after(json.loads(line))) + "\n")
        answers.flush()
