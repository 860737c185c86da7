"""Train and evaluate the runs that a question asks for, as far as they are not there yet.

FILE is a question of experiments/: every combination of what it lists under `vary` is a run.
Finished runs are recognized by what they hold and left alone, killed ones go on from their last
checkpoint; so the same command may be given again at any time. key=value overrides a setting of
all runs, or narrows one that varies (data.fold=0, model.rounds=[0,4]); vary.seed=[0,1,2] varies one
more; base=reduced.yml asks the same of other settings. Everything measured lands in one file of
tidy rows, which `catnet report` turns into a page.

example:
  catnet sweep experiments/rounds.yml base=reduced.yml data.fold=0 --jobs 2
"""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.live import Live

from catnet.config import MachineSettings
from catnet.errors import UserError
from catnet.question import load_question
from catnet.sweep.board import board, line
from catnet.sweep.cluster import HERE, run_on_ray
from catnet.sweep.jobs import Job, State, States, job_command
from catnet.sweep.local import run_local
from catnet.sweep.store import ROWS, Sweep, add_rows, check_rows, write_sweep

FOREVER = -1.0  # another process may be at the same run, or one that a cluster has just lost


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a question of experiments/")
    parser.add_argument("settings", nargs="*", default=[], metavar="key=value", help="see above")
    parser.add_argument("--jobs", type=positive, default=1, metavar="N", help="runs at once, here")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=HERE,
        metavar="ADDRESS",
        help="on the Ray cluster there (auto: the one that this machine is part of); without an "
        "address, on one of this machine alone; machine.cpu_share, gpu_share: what a run takes",
    )
    parser.add_argument("--list", action="store_true", help="print the runs and their state only")
    parser.add_argument(
        "--only",
        metavar="NUMBER",
        help="do this run of the list (its number from 1, or its hash), in this process",
    )


def positive(text: str) -> int:
    """A number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of runs; give 1 or more")
    return number


def run(options: argparse.Namespace) -> None:
    """Do what is missing."""
    check_address(options.ray)
    sweep = Sweep(load_question(options.file, options.settings))
    if not options.list:
        check_rows(sweep)
    if options.only is not None:
        do_one(sweep, find_job(sweep, options.only))
        return
    before: dict[int, State] = {job.number: job.state for job in sweep.jobs}
    if options.list:
        show_list(sweep, before)
        return
    missing = [job for job in sweep.jobs if before[job.number] != "done"]
    before |= {job.number: "waiting" for job in missing}
    engine = start(options, missing)
    command = shlex.join(["catnet", "sweep", str(options.file), *options.settings])
    write_sweep(sweep, command=command)
    print(f"{len(before)} runs of {sweep.question.name}, {len(before) - len(missing)} finished")
    watch(sweep, before, engine)
    sweep = Sweep(sweep.question)  # a run may have been made elsewhere meanwhile
    write_sweep(sweep, command=command)
    conclude(sweep)


def conclude(sweep: Sweep) -> None:
    """Gather the rows and say where they are; raises `UserError` where runs have failed."""
    left = [job for job in sweep.jobs if job.state != "done"]
    count = len(sweep.jobs)
    for job in left:
        print(line(job, "failed", of=count))
    for job in sweep.jobs:
        if job not in left:
            add_rows(sweep, job)
    print(f"rows: {sweep.folder / ROWS}")
    if left:
        raise UserError(
            f"{len(left)} of {count} runs failed; mend what they say, and give the same command "
            "again"
        )
    print(f"report: catnet report {shlex.quote(str(sweep.folder))}")


def check_address(address: str | None) -> None:
    """Raise `UserError` where `--ray` has swallowed the question."""
    if address and Path(address).suffix in {".yml", ".yaml"}:
        raise UserError(f"--ray takes {address} for its address; give FILE first, then --ray")


def find_job(sweep: Sweep, name: str) -> Job:
    """A job by its number or its identity; raises `UserError` for one that is not there."""
    for job in sweep.jobs:
        if name in {str(job.number), job.folder.identity}:
            return job
    raise UserError(
        f"--only {name}: this question has the runs 1 to {len(sweep.jobs)}, and none of that "
        "hash; has its file changed since the sweep began? Give the sweep again"
    )


def show_list(sweep: Sweep, states: States) -> None:
    """The runs on a terminal as a table, else one in each line, for a script."""
    console = Console()
    if console.is_terminal:
        console.print(board(sweep, states))
        return
    for job in sweep.jobs:
        print(line(job, states[job.number], of=len(states)))


def start(options: argparse.Namespace, missing: list[Job]) -> Iterator[States]:
    """The engine that was asked for, at work on what is missing."""

    def command(job: Job) -> list[str]:
        return job_command(options.file.absolute(), options.settings, job)

    if not missing:
        return iter(())
    machine = missing[0].folder.run.machine
    if options.ray is not None:
        return run_on_ray(missing, command=command, address=options.ray, machine=machine)
    gpus = count_gpus(machine) if options.jobs > 1 else 0
    return run_local(missing, command=command, at_once=options.jobs, gpus=gpus)


def count_gpus(machine: MachineSettings) -> int:
    """How many GPUs the runs may take turns at."""
    import torch  # late: a sweep that only watches does without

    return 0 if machine.accelerator == "cpu" else torch.cuda.device_count()


def watch(sweep: Sweep, before: States, engine: Iterator[States]) -> None:
    """Show the engine's states until it has ended; a table on a terminal, else lines."""
    console = Console(stderr=True)
    screen = Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext()
    states = dict(before)
    with screen as live:
        for now in engine:
            changed = [job for job in sweep.jobs if now.get(job.number) != states[job.number]]
            states |= now
            if live is not None:
                live.update(board(sweep, states), refresh=True)
                continue
            for job in changed:
                if job.number in now and states[job.number] != "failed":  # these are told of last
                    print(line(job, states[job.number], of=len(states)), flush=True)


def do_one(sweep: Sweep, job: Job) -> None:
    """Train and evaluate one job here, and add its rows."""
    from catnet.commands.evaluate import evaluate_one  # late: a sweep that only watches needs
    from catnet.commands.train import train_run  # no torch

    train_run(job.folder, patience=FOREVER)
    for evaluated in job.evaluations:
        evaluate_one(evaluated, again=False, patience=FOREVER)
    add_rows(sweep, job)
