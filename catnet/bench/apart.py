"""The plain side in a process of its own, whose memory the system's allocator keeps as it will.

The library tells the allocator to keep what is freed (`catnet.allocator`), which holds for a whole
process; the public code does not.
"""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from typing import Any

from catnet.data.workers import begin
from catnet.errors import UserError

Call = Callable[..., Any]


@contextmanager
def apart() -> Iterator[Call]:
    """`call(function, *given)` is what the function gives in that process.

    It begins with the first call and ends with this. Raises `UserError` where it is killed.
    """
    begun: list[int] = []
    pool = ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=begin, initargs=(os.getpid(),)
    )

    def call(function: Call, *given: object) -> object:
        try:
            if not begun:
                begun.append(pool.submit(os.getpid).result())
            return pool.submit(function, *given).result()
        except BrokenProcessPool:
            raise UserError(
                "the process of the plain side was killed, most often for want of memory; free some"
            ) from None

    try:
        yield call
    finally:
        for number in begun:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGTERM)  # it may be in the middle of a volume
        pool.shutdown()
