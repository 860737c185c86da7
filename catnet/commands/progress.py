"""Progress bars that show what is at hand and the time left."""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def first_process() -> bool:
    """Whether this is the one process of several that speaks."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def progress_bar(what: str, *fields: str) -> Progress:
    """A bar with further text columns, which may name fields of the task; on terminals only."""
    texts = (TextColumn(field, markup=False) for field in fields)
    return bar_of(TextColumn(what), BarColumn(), MofNCompleteColumn(), *texts)


@contextmanager
def download_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of bytes, which is told how many are there and how many there will be."""
    columns = (TextColumn("downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with bar_of(*columns) as bar:
        task = bar.add_task("downloading", total=None)
        yield lambda held, total: bar.update(task, completed=held, total=total or None)


def bar_of(*columns: ProgressColumn) -> Progress:
    """These columns and the time left, on a terminal and in the first process alone."""
    console = Console(stderr=True)
    silent = not (first_process() and console.is_terminal)
    return Progress(*columns, TimeRemainingColumn(), console=console, disable=silent)


class Lines:
    """When to print a line of progress where there is no bar: once a minute."""

    def __init__(self, *, every: float = 60.0) -> None:
        self.every = every
        self.then = time.monotonic()

    def due(self) -> bool:
        """Whether it is time; each time that it is starts the next interval."""
        now = time.monotonic()
        if now - self.then < self.every:
            return False
        self.then = now
        return True


def track(steps: Iterable[tuple[str, int, bool]], what: str) -> Iterator[tuple[str, int, bool]]:
    """Pass (case, number of cases, whether there was work) through, and show it."""
    with progress_bar(what, "{task.fields[case]}") as bar:
        task = bar.add_task(what, total=None, case="")
        for case, total, fresh in steps:
            bar.update(task, advance=1, total=total, case=f"case {case}")
            yield case, total, fresh
