"""How processes end: not later than the one that started them, and not without tidying up."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


def follow(parent: int) -> None:
    """From now on end when the process of this number, which started this one, has ended."""
    threading.Thread(target=end_with, args=(parent,), daemon=True).start()


def end_with(parent: int) -> None:
    """End this process when its parent has ended: nobody would wait for what it does."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(143)


def leave_signals_to_parent() -> None:
    """Ctrl-C is for the process that started this one, and SIGTERM ends this one at once."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class ToldToEnd(KeyboardInterrupt):
    """SIGTERM, as `timeout`, `kill` and SLURM send it."""


def end(number: int, frame: object) -> NoReturn:
    """Raise `ToldToEnd`; loader processes that were told too, and end, are no error then."""
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    raise ToldToEnd


@contextmanager
def tidy_when_told_to_end() -> Iterator[None]:
    """Within, SIGTERM ends the process as Ctrl-C does: through every `finally`.

    One of several that torchrun started ends at once: torchrun ends what that one started, too.
    """
    if "LOCAL_RANK" in os.environ:
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
