import logging
import os
import shlex
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed, nn
from trials import complaint, end_of, finish, log_of, start

from catnet.cli import main
from catnet.config import Run
from catnet.engine import Engine, choose_device
from catnet.errors import UserError
from catnet.loading import training_batch
from catnet.question import load_run
from catnet.train import (
    build_objective,
    build_optimizer,
    learning_rate,
    open_training,
    set_rate,
)

CPU = torch.device("cpu")


def test_the_shares_of_two_processes_are_the_batch_of_one(tiny):
    folder = tiny("train.batch=4", "data.shots=2")
    _, source = open_training(folder)
    whole, *shares = (
        training_batch(source, folder.run, engine=Engine(CPU, rank, world, mixed=False), step=3)
        for rank, world in ((0, 1), (0, 2), (1, 2))
    )
    for name in ("support", "support_mask", "query", "query_mask"):
        parts = [getattr(share, name) for share in shares]
        assert torch.equal(torch.cat(parts), getattr(whole, name))
    assert whole.support.shape == (4, 2, 1, 64, 64)


def two_shares(folder):
    """One step as two processes compute it: gradients averaged, batch norm by each one's share.

    One process normalizes all four episodes together, so its loss is another one; that, and
    nothing else, is what `machine.devices` changes.
    """
    _, source = open_training(folder)
    objective = build_objective(folder.run)
    losses = [
        objective(
            training_batch(source, folder.run, engine=Engine(CPU, rank, 2, mixed=False), step=0)
        )
        for rank in range(2)
    ]
    optimizer = build_optimizer(objective, folder.run.train)
    total = sum(loss.total for loss in losses) / 2
    total.backward()
    nn.utils.clip_grad_norm_(objective.parameters(), folder.run.train.clip)
    set_rate(optimizer, learning_rate(folder.run.train, 0))
    optimizer.step()
    return total.item(), dict(objective.model.named_parameters())


@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("prior", ["trained", "fixed"])
def test_two_processes_average_their_gradients(tiny, tiny_home, prior):
    settings = ("train.steps=1", "train.batch=4", "train.rate=0.1", "machine.devices=2")
    settings += (f"model.prior={prior}",)
    folder = tiny(*settings)
    out, err = finish(start(tiny_home, *settings))
    assert (out, err) == (f"trained: {folder.path}\n", "")
    loss, parameters = two_shares(folder)
    assert log_of(folder)[0]["loss"] == pytest.approx(loss, rel=1e-4)
    found = load_file(folder.model / "model.safetensors")
    for name, value in parameters.items():
        torch.testing.assert_close(found[name], value.detach(), rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.skipif(not distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_do_not_wait_for_weights_that_nothing_uses(tiny, tiny_home):
    settings = ("train.steps=2", "train.batch=2", "machine.devices=2", "train.weight_decay=0.1")
    settings += ("model.encoder=efficientnet-b0",)
    folder = tiny(*settings)
    out, err = finish(start(tiny_home, *settings))
    assert (out, err) == (f"trained: {folder.path}\n", "")
    found = load_file(folder.model / "model.safetensors")
    begun = dict(build_objective(folder.run).model.named_parameters())
    unused = {name for name in begun if "_conv_head" in name or "backbone._bn1" in name}
    assert len(unused) == 3
    assert {name for name, value in begun.items() if torch.equal(found[name], value)} == unused


def test_processes_that_cannot_share_a_batch_are_told_so(tiny, tiny_home, capsys):
    command = ["train", str(tiny_home / "tiny.yml"), "train.batch=1", "machine.devices=2"]
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "train.batch 1 cannot be shared by 2 processes; make it a multiple of 2" in err


@pytest.mark.parametrize(
    ("accelerator", "gpus", "local", "expected"),
    [
        ("cpu", 4, 1, "cpu"),
        ("auto", 0, 0, "cpu"),
        ("auto", 2, 1, "cuda:1"),
        ("auto", 1, 0, "cpu"),  # not one of two processes here and the other one there
        ("gpu", 2, 1, "cuda:1"),
        ("gpu", 1, 0, None),
        ("gpu", 0, 0, None),
    ],
)
def test_two_processes_take_one_kind_of_device(accelerator, gpus, local, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    machine = Run().machine.model_copy(update={"accelerator": accelerator})
    if expected is None:
        with pytest.raises(UserError, match=f"torch sees {gpus} GPUs"):
            choose_device(machine, local=local, processes=2)
    else:
        assert choose_device(machine, local=local, processes=2) == torch.device(expected)


@pytest.fixture
def processes(monkeypatch):
    """`processes(error)`: what torchrun raises in the end; returns what it was called with."""
    from torch.distributed import run as torchrun

    called = []

    def use(error):
        def started(words):
            called.extend(words)
            if error:
                raise error

        monkeypatch.setattr(torchrun, "main", started)
        monkeypatch.setattr(logging, "disable", lambda: None)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        return called

    return use


def failed(status):
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    failure = ProcessFailure(local_rank=0, pid=1, exitcode=status, error_file="<N/A>")
    return ChildFailedError("catnet", {0: failure})


def test_torchrun_is_given_the_very_same_run(processes, places, capsys):
    called = processes(None)
    words = shlex.split(places("train {file} machine.devices=2 train.batch=4"))
    assert end_of(words, capsys) == (0, "", "")
    *rest, file = called[called.index("-m") :]
    assert rest == ["-m", "catnet", "train"]
    assert load_run(Path(file)) == load_run(Path(words[1]), words[2:])
    assert "CATNET_FOLLOW" not in os.environ
    assert "--nproc-per-node=2" in called


@pytest.mark.parametrize("status", [1, 2, 130])
def test_a_process_that_spoke_for_itself_is_not_repeated(status, processes, places, capsys):
    processes(failed(status))
    words = shlex.split(places("train {file} machine.devices=2"))
    assert end_of(words, capsys) == (status, "", "")


def test_a_process_that_was_killed_is_told_of(processes, places, capsys):
    processes(failed(-9))
    words = shlex.split(places("train {file} machine.devices=2"))
    assert "signal 9 ended a process of this run" in complaint(words, capsys)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_control_c_reaches_every_process(number, processes, places, capsys):
    from torch.distributed.elastic.multiprocessing import SignalException

    processes(SignalException("stopped", number))
    words = shlex.split(places("train {file} machine.devices=2"))
    assert end_of(words, capsys)[0] == 128 + number
