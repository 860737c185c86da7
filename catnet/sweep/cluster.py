"""The same jobs on a Ray cluster, whose machines share the folders of data and runs.

Ray places the jobs, and starts one again elsewhere when its machine is lost; the job then goes on
from its last checkpoint. Moritz et al., "Ray: A Distributed Framework for Emerging AI
Applications", OSDI 2018, arXiv 1712.05889.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from ipaddress import ip_address
from pathlib import Path

from catnet.config import MachineSettings
from catnet.errors import UserError
from catnet.paths import cards_home, data_home, runs_home
from catnet.sweep.jobs import Job, State, States
from catnet.sweep.local import PAUSE, start

HERE = "here"  # an address that stands for a cluster of this machine alone
LOOPBACK = "127.0.0.1"
RETRIES = 5  # machines that a job may lose
PATIENCE = 10.0  # seconds that a cluster has to answer


def run_on_ray(
    jobs: Sequence[Job],
    *,
    command: Callable[[Job], list[str]],
    address: str,
    machine: MachineSettings,
) -> Iterator[States]:
    """Do all jobs on the cluster at `address`; tells their states again and again.

    Raises `UserError` where Ray is not installed, or no cluster answers.
    """
    ray = connect(address)
    try:
        check_room(ray, machine)
    except UserError:
        ray.shutdown()
        raise
    return follow(ray, jobs, command=command, machine=machine)


def follow(
    ray: "ModuleType",  # noqa: F821
    jobs: Sequence[Job],
    *,
    command: Callable[[Job], list[str]],
    machine: MachineSettings,
) -> Iterator[States]:
    """Hand the jobs to a cluster, and tell what becomes of them; leaves the cluster in the end."""
    places = {
        "CATNET_DATA": data_home(),
        "CATNET_RUNS": runs_home(),
        "CATNET_CARDS": cards_home(),
    }
    environment = {name: str(path.resolve()) for name, path in places.items()}
    task = ray.remote(
        num_cpus=machine.cpu_share,
        num_gpus=machine.gpu_share,
        max_retries=RETRIES,
        max_calls=1,
    )(work)
    begun = time.time()
    try:
        waiting = {
            task.remote(command(job), job.log.resolve(), environment, os.getcwd()): job
            for job in jobs
        }
        states: dict[int, State] = {job.number: "waiting" for job in jobs}
        while waiting:
            for reference in ray.wait(list(waiting), num_returns=1, timeout=PAUSE)[0]:
                states[waiting.pop(reference).number] = outcome(ray, reference)
            for job in waiting.values():
                if job.log.exists() and job.log.stat().st_mtime >= begun:
                    states[job.number] = "running"
            yield dict(states)
    finally:
        ray.shutdown()


def connect(address: str) -> "ModuleType":  # noqa: F821
    """Ray, connected."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # read by Ray when it is imported
    try:
        import ray
    except ModuleNotFoundError:
        raise UserError("--ray needs Ray; install it with: pip install 'catnet[sweep]'") from None
    check_reachable(address)
    try:
        with on_loopback() if address == HERE else nullcontext():
            ray.init(
                address="local" if address == HERE else address,
                log_to_driver=False,
                logging_level="ERROR",
                include_dashboard=False if address == HERE else None,
                _node_ip_address=LOOPBACK if address == HERE else None,
            )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        raise UserError(no_answer(address, error)) from None
    if address == HERE:
        check_loopback(ray)
    return ray


@contextmanager
def on_loopback() -> Iterator[None]:
    """Around the start of a cluster of this machine alone: nobody else may reach it.

    Whoever reaches a Ray cluster can run code there. Ray takes the machine's outer address even
    where it is given 127.0.0.1, unless it is told that there are no clusters (as on macOS).
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def check_loopback(ray: "ModuleType") -> None:  # noqa: F821
    """Raise `UserError` where other machines could reach the cluster that was just started."""
    open_to_others = [
        node["NodeManagerAddress"]
        for node in ray.nodes()
        if not ip_address(node["NodeManagerAddress"]).is_loopback
    ]
    if open_to_others:
        ray.shutdown()
        raise UserError(
            f"--ray: this version of Ray listens at {open_to_others[0]}, for others too; "
            "use --jobs on this machine, or start a cluster with `ray start --head`"
        )


def check_room(ray: "ModuleType", machine: MachineSettings) -> None:  # noqa: F821
    """Raise `UserError` where no machine of the cluster is large enough for a run."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(
        node.get("CPU", 0) >= machine.cpu_share and node.get("GPU", 0) >= machine.gpu_share
        for node in nodes
    ):
        raise UserError(
            f"no machine of the cluster has {machine.cpu_share:g} CPUs and {machine.gpu_share:g} "
            "GPUs for a run; lower machine.cpu_share or machine.gpu_share"
        )


def check_reachable(address: str) -> None:
    """Raise `UserError` where nothing listens; Ray itself would wait for minutes."""
    if address in {HERE, "auto", "local"}:
        return  # Ray itself knows at once
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host:
        raise UserError(
            f"--ray {address}: an address has a port, such as {address.rpartition('/')[2]}:6379, "
            "which `ray start --head` prints"
        )
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except (OSError, ValueError) as error:
        raise UserError(no_answer(address, error)) from None


def no_answer(address: str, error: BaseException) -> str:
    """The sentence for a cluster that is not there."""
    why = str(error).strip().partition("\n")[0]
    return (
        f"--ray {address}: no Ray cluster answers there ({why}); start one with "
        "`ray start --head`, or leave the address out to use this machine alone"
    )


def work(command: list[str], log: Path, environment: dict[str, str], folder: str) -> int:
    """One job in a process of its own, on whatever machine; returns its exit status."""
    os.chdir(folder)
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    return start(command, log=log, environment=environment | threads).wait()


def outcome(ray: "ModuleType", reference: object) -> State:  # noqa: F821
    """Whether a job that has ended did what it should."""
    try:
        return "failed" if ray.get(reference) else "done"
    except ray.exceptions.RayError:  # lost with more machines than it may lose
        return "failed"
