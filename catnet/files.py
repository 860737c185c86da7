"""Files that are whole or not there, however a process ends."""

import hashlib
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from re import Pattern

from filelock import FileLock, Timeout

from catnet.errors import UserError, writing

LOCK, HOLDER = ".lock", ".lock.json"  # apart: to open a lock may empty it


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside the place, then move there; raises `UserError` where the disk refuses."""
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with writing(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def held(folder: Path) -> bool:
    """Whether a process is at work in a folder that `alone` guards."""
    path = folder / LOCK
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # nobody can be at work in a folder that is closed
        return False
    lock.release()
    return False


@contextmanager
def alone(
    folder: Path, *, patience: float = 0.0, clear: Callable[[Path], None] | None = None
) -> Iterator[None]:
    """Around work that two processes must not do in one folder at the same time.

    The lock ends with its process, however that ends, and what that was writing is taken away:
    by `clear`, where the folder is the user's and may hold files that are named alike.
    Raises `UserError`, which says who it is, where another has it and has not given it back after
    `patience` seconds; a negative patience has no end.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            raise UserError(
                f"{folder}: another process is at work here{tell_holder(folder)}; wait for it to "
                "end"
            ) from None
    try:
        (clear or clear_cut_off)(folder)
        write_text(folder / HOLDER, json.dumps(this_process()) + "\n")
        yield
    finally:
        with suppress(OSError):  # on a disk that was closed meanwhile
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def clear_cut_off(folder: Path) -> None:
    """Remove files that processes which were killed had not written to the end: `.PID-NAME`."""
    for path in folder.rglob(".*-*"):
        remove_cut_off(path)


def clear_named(folder: Path, names: Pattern[str]) -> None:
    """As `clear_cut_off`, but of files of these names alone that lie in the folder itself."""
    for path in folder.glob(".*-*"):
        if names.fullmatch(path.name.partition("-")[2]):
            remove_cut_off(path)


def remove_cut_off(path: Path) -> None:
    """Remove a file whose name says that a process wrote it, where that process is no more."""
    pid = path.name[1:].partition("-")[0]
    if pid.isdecimal() and path.is_file() and not is_alive(int(pid)):
        with suppress(OSError):
            path.unlink()


def is_alive(pid: int) -> bool:
    """Whether a process of this number is running, be it ours or not."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def this_process() -> dict[str, object]:
    """What another process is told of this one."""
    program = Path(sys.argv[0]).name
    words = ["catnet" if program == "__main__.py" else program, *sys.argv[1:]]
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {
        "command": shlex.join(words),
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": since,
    }


def tell_holder(folder: Path) -> str:
    """Who has the lock of a folder, in words; empty in the moment before it has written that."""
    try:
        known = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return ": `{command}` (process {process} on {host}, since {since})".format_map(known)
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents; raises `UserError` where it cannot be read."""
    total = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the file") from None
    return total.hexdigest()
