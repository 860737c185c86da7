"""Jobs on this machine, some of them at once, each in a process of its own."""

import os
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from catnet.paths import FOLLOW
from catnet.sweep.jobs import ATTEMPT, Job, State, States

PAUSE = 0.5  # seconds between two looks at the processes


def run_local(
    jobs: Sequence[Job], *, command: Callable[[Job], list[str]], at_once: int, gpus: int
) -> Iterator[States]:
    """Do all jobs; tells their states again and again. What still runs when left is ended."""
    waiting, running = deque(jobs), {}
    free = deque(range(at_once))
    states: dict[int, State] = {job.number: "waiting" for job in jobs}
    try:
        while waiting or running:
            while waiting and free:
                job, slot = waiting.popleft(), free.popleft()
                environment = share_of_machine(slot, at_once=at_once, gpus=gpus)
                process = start(command(job), log=job.log, environment=environment)
                running[job.number] = process, slot
                states[job.number] = "running"
            yield dict(states)
            time.sleep(PAUSE)
            for number, (process, slot) in list(running.items()):
                if process.poll() is not None:
                    states[number] = "failed" if process.returncode else "done"
                    free.append(slot)
                    del running[number]
        yield dict(states)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()


def start(command: list[str], *, log: Path, environment: dict[str, str]) -> subprocess.Popen:
    """Start a job, which ends with this process; what it prints is added to its log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        file.write(f"{ATTEMPT}{time.strftime('%Y-%m-%d %H:%M:%S')}\n".encode())
        file.flush()
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | environment | {FOLLOW: str(os.getpid())},
        )


def share_of_machine(slot: int, *, at_once: int, gpus: int) -> dict[str, str]:
    """Jobs that run at once take an equal share of the cores, and turns at the GPUs."""
    threads = str(max(1, (os.cpu_count() or 1) // at_once))
    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    if gpus > 1 and at_once > 1 and "CUDA_VISIBLE_DEVICES" not in os.environ:
        share["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
    return share
