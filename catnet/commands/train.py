"""Train the network of a run file; any setting can be given as key=value.

The run's folder under $CATNET_RUNS is named by a hash of everything that decides its weights, up to
how a machine and its number of threads round. The same command again goes on from the last
checkpoint, and a finished run is left alone. Several processes: machine.devices=N, or
`torchrun --nproc-per-node N -m catnet train ...`.

example:
  catnet train experiments/baseline.yml data.fold=1 model.rounds=5 machine.accelerator=gpu
"""

import argparse
import logging
import os
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

import torch

from catnet.commands.progress import Lines, first_process, progress_bar
from catnet.commands.settings import add_settings
from catnet.engine import check_share, choose_device
from catnet.errors import UserError
from catnet.files import alone
from catnet.journal import Progress
from catnet.model.networks import build_network
from catnet.paths import FOLLOW
from catnet.processes import ToldToEnd
from catnet.question import load_run
from catnet.runs import SETTINGS, RunFolder, find_run_folder, write_settings
from catnet.train import open_training, train

STOPPED = (
    "the same command goes on from the last checkpoint (machine.checkpoint_every), or from the "
    "beginning where there is none yet"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a file of experiments/")
    add_settings(parser)


def run(options: argparse.Namespace) -> None:
    """Train to the end."""
    train_run(find_run_folder(load_run(options.file, options.settings)))


def train_run(folder: RunFolder, *, patience: float = 0.0) -> None:
    """Train a run that may have begun; waits `patience` seconds for a process that is at it."""
    if folder.trained:
        print(f"already trained: {folder.path}")
        return
    check_first(folder)
    if folder.run.machine.devices > 1 and "WORLD_SIZE" not in os.environ:
        write_settings(folder)
        start_processes(folder)
        return
    fields = ("steps", "loss {task.fields[loss]:.3f}", "{task.fields[speed]:.2f} steps/s")
    with (
        alone(folder.path, patience=patience) if first_process() else nullcontext(),
        progress_bar("training", *fields) as bar,
    ):
        if folder.trained:  # by the process that was waited for
            print(f"already trained: {folder.path}")
            return
        if first_process():
            write_settings(folder)
        task = bar.add_task("", total=folder.run.train.steps, loss=float("nan"), speed=0.0)
        lines = Lines()

        def report(now: Progress) -> None:
            bar.update(task, completed=now.step, loss=now.loss, speed=now.speed)
            if bar.disable and lines.due():
                print(f"step {now.step} of {now.steps}, loss {now.loss:.3f}", flush=True)

        train(
            folder,
            report=report,
            say=lambda text: bar.console.print(text, soft_wrap=True, highlight=False),
        )
    if first_process():
        print(f"trained: {folder.path}")


def check_first(folder: RunFolder) -> None:
    """Raise `UserError` before anything is written, and once where several processes would."""
    count = folder.run.machine.devices
    check_share(folder.run, processes=int(os.environ.get("WORLD_SIZE", count)))
    choose_device(folder.run.machine, processes=int(os.environ.get("LOCAL_WORLD_SIZE", count)))
    with torch.device("meta"):  # names and options, without the weights
        build_network(folder.run.model.model_copy(update={"encoder_weights": "none"}))
    open_training(folder)


def start_processes(folder: RunFolder) -> None:
    """The same run in several processes, which torchrun starts and watches over."""
    # Late: they set up logging when imported.
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    logging.disable()  # this process watches; what went wrong, the one that failed says
    count = folder.run.machine.devices
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    os.environ[FOLLOW] = str(os.getpid())
    engine = ["--standalone", f"--nproc-per-node={count}", "-m", "catnet"]
    try:
        torchrun([*engine, "train", str(folder.path / SETTINGS)])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        if failure.exitcode > 0:
            sys.exit(failure.exitcode)  # the process has said why
        raise UserError(
            f"signal {-failure.exitcode} ended a process of this run, often for want of memory; "
            "lower train.batch; the same command goes on from the last checkpoint"
        ) from None
    except SignalException as stopped:
        raise (ToldToEnd if stopped.sigval == signal.SIGTERM else KeyboardInterrupt) from None
    finally:
        del os.environ[FOLLOW]
