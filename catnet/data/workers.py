"""Independent tasks, one after the other or in several processes, whose mistakes stop no other."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from catnet.errors import UserError
from catnet.processes import follow, leave_signals_to_parent

Result = TypeVar("Result")


def outcomes(
    work: Callable[[Any], Result], tasks: Mapping[str, Any], *, jobs: int
) -> Iterator[tuple[str, Result | UserError]]:
    """Each task's name and result, or the user's mistake in it, in the order of `tasks`.

    A worker holds one task at a time, so its memory does not grow with their number. What has not
    begun when the caller stops is dropped.
    """
    if jobs == 1 or len(tasks) < 2:
        for name, task in tasks.items():
            yield name, attempt(work, task)
        return
    pool = ProcessPoolExecutor(
        min(jobs, len(tasks)),
        mp_context=get_context("spawn"),
        initializer=begin,
        initargs=(os.getpid(),),
    )
    try:
        futures = {name: pool.submit(work, task) for name, task in tasks.items()}
        for name, future in futures.items():
            yield name, collect(future)
    finally:
        pool.shutdown(cancel_futures=True)


def attempt(work: Callable[[Any], Result], task: object) -> Result | UserError:
    """The result of a task, or the user's mistake in it."""
    try:
        return work(task)
    except UserError as error:
        return error


def collect(future: Future) -> object:
    """The result of another process, or the user's mistake; raises `UserError` where it died."""
    try:
        return future.result()
    except UserError as error:
        return error
    except BrokenProcessPool:
        raise UserError(
            "a process was killed, most often for want of memory; give fewer --jobs, and the same "
            "command goes on from here"
        ) from None


def begin(parent: int) -> None:
    """The process that started this one answers the keyboard, and this one ends with it."""
    follow(parent)
    leave_signals_to_parent()
