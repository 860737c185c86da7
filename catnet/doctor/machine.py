"""Python, platform, cores, memory, disks."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from catnet.doctor.line import GIGABYTE, Line, gigabytes
from catnet.paths import data_home, runs_home

OLDEST = (3, 10)
LITTLE_MEMORY, LEAST_MEMORY = 8 * GIGABYTE, 2 * GIGABYTE
LITTLE_DISK, LEAST_DISK = 10 * GIGABYTE, 1 * GIGABYTE
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def python() -> Iterator[Line]:
    """The interpreter and the system."""
    state, remedy = "ok", ""
    if sys.version_info < OLDEST:
        state, remedy = "problem", "install Python 3.10 or newer"
    yield Line("python", state, f"{platform.python_version()} in {sys.prefix}", remedy)
    yield Line("platform", "ok", platform.platform())


def cores() -> Iterator[Line]:
    """How many cores this process may use."""
    there = os.cpu_count() or 1
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    threads = os.environ.get("OMP_NUM_THREADS")
    told = f", OMP_NUM_THREADS={threads}" if threads else ""
    yield Line("cores", "ok", f"{mine} of {there}{told}")


def memory() -> Iterator[Line]:
    """The memory of the machine, or what a container leaves of it."""
    total = memory_size()
    what = gigabytes(total)
    if total < LEAST_MEMORY:
        yield Line("memory", "problem", what, "2 GB are the least; use a larger machine")
    elif total < LITTLE_MEMORY:
        remedy = "prepare and train small cards (chaos_t2_small); lower train.batch"
        yield Line("memory", "note", what, remedy)
    else:
        yield Line("memory", "ok", what)


def memory_size() -> int:
    """Bytes."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in map(Path, LIMITS):
        text = path.read_text().strip() if path.is_file() else ""
        sizes += [int(text)] if text.isdigit() else []
    return min(sizes)


def disks() -> Iterator[Line]:
    """Room, and the right to write, where data and runs go."""
    for name, folder in (("CATNET_DATA", data_home()), ("CATNET_RUNS", runs_home())):
        yield disk(name, folder)


def disk(name: str, folder: Path) -> Line:
    """The line of one folder, which need not be there yet."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        return Line(name, "problem", f"{there} is a file", f"set {name} to a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = f"set {name} to a folder that you may write to"
        return Line(name, "problem", f"{folder}: {there} cannot be written to", remedy)
    free = shutil.disk_usage(there).free
    what = f"{folder}, {gigabytes(free)} free"
    remedy = f"make room, or set {name} to a folder on another disk"
    if free < LEAST_DISK:
        return Line(name, "problem", what, remedy)
    return Line(name, "note", what, remedy) if free < LITTLE_DISK else Line(name, "ok", what)
