"""What the tests of running commands share: to train, to be killed, to read what is left."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from catnet.cli import main
from catnet.data.store import open_cases
from catnet.evaluate.predictors import NetworkPredictor
from catnet.model.networks import initial_model
from catnet.runs import PROVENANCE, provenance, write_json
from catnet.train import train


class Killed(BaseException):
    """Stands for a kill: nothing catches it, and nothing is tidied up."""


class Exact(NetworkPredictor):
    """A network in double precision: what batches it meets turns no pixel."""

    def __init__(self, model):
        super().__init__(model.double(), device=torch.device("cpu"), precision=torch.float64)

    def query(self, images):
        return super().query(images.astype(np.float64))

    def bind(self, encoded, masks):
        return super().bind(encoded, masks.astype(np.float64))


def silent(what):
    """Neither a bar nor a word."""


def run(folder, *, stop=None, say=silent):
    """Train; or fall dead right after the log line of step `stop`."""

    def report(progress):
        if progress.step == stop:
            raise Killed

    train(folder, report=report, say=say)
    return folder


def killed(folder, *, stop):
    with pytest.raises(Killed):
        run(folder, stop=stop)
    assert not folder.trained
    time.sleep(1 - time.time() % 1)  # TensorBoard orders its files by the second they were begun
    return folder


def untaught(folder, model=None):
    """As if the run had been trained: its network, or the one that it begins with, and its data."""
    model = initial_model(folder.run.model, seed=folder.run.seed) if model is None else model
    model.save_pretrained(folder.model)
    write_json(folder.path / PROVENANCE, provenance(folder, open_cases(folder.card)))
    return folder


def log_of(folder):
    return [json.loads(line) for line in (folder.path / "log.jsonl").read_text().splitlines()]


def weights_of(folder):
    return (folder.model / "model.safetensors").read_bytes()


def events_of(folder):
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    return events


def scalars_of(folder):
    """(step, value) of the loss, as TensorBoard shows it."""
    return [(event.step, event.value) for event in events_of(folder).Scalars("loss")]


def assert_same(one, other):
    """Two runs agree bit for bit: weights, log, and what TensorBoard shows."""
    assert weights_of(one) == weights_of(other)
    log = (one.path / "log.jsonl").read_text()
    assert log == (other.path / "log.jsonl").read_text()
    assert [line["step"] for line in log_of(one)] == list(range(1, one.run.train.steps + 1))
    assert scalars_of(one) == scalars_of(other)


def start(tiny_home, *settings):
    """`catnet train` in a process of its own."""
    command = [sys.executable, "-m", "catnet", "train", str(tiny_home / "tiny.yml"), *settings]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def finish(process):
    out, err = process.communicate(timeout=280)
    assert process.returncode == 0, err
    return out, err


def wait_for_line(process, folder, *, step):
    """Wait until the log of a running process tells of a step."""
    log = folder.path / "log.jsonl"
    while not (log.is_file() and f'{{"step": {step},' in log.read_text()):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)


def end_of(command, capsys):
    """Exit status, standard output and standard error of a command."""
    capsys.readouterr()
    try:
        main([str(word) for word in command])
        status = 0
    except SystemExit as ended:
        status = ended.code
    return status, *capsys.readouterr()


def complaint(command, capsys):
    """The one sentence that a mistake ends with."""
    status, out, err = end_of(command, capsys)
    assert (status, out) == (2, "")
    assert err.startswith("catnet: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err.removeprefix("catnet: ").strip()


def raising(error):
    """Something to call that fails so."""

    def run(*_, **__):
        raise error

    return run
