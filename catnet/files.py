"""Files that are whole or not there, however a process ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from catnet.errors import UserError, writing

LOCK = ".lock"


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
    lock.release()
    return False


@contextmanager
def alone(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Around work that two processes must not do in one folder at the same time.

    The lock ends with its process, however that ends. Raises `UserError` where another has it,
    and has not given it back after `patience` seconds; a negative patience has no end.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise UserError(f"{folder}: another process is at work here; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()
