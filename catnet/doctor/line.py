"""One line of the doctor's report, and probes that never end in a traceback."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "note", "problem"]
GIGABYTE = 1e9


@dataclass(frozen=True)
class Line:
    """What was looked at, how it is, and what to do about it (empty where nothing is to be done).

    A note costs comfort or is only good to know; a problem keeps something from working.
    """

    subject: str
    state: State
    what: str
    remedy: str = ""


Probe = Callable[[], Iterable[Line]]


def ask(subject: str, probe: Probe) -> Iterator[Line]:
    """The lines of a probe; a probe that fails, in whatever way, is a problem by itself."""
    try:
        yield from probe()
    except Exception as error:  # a doctor that falls ill is of no use
        why = " ".join(str(error).split())[:300]
        yield Line(
            subject,
            "problem",
            f"could not be looked at: {type(error).__name__}: {why}",
            "mend what the message names",
        )


def gigabytes(size: int | float) -> str:
    """A size in bytes, for people."""
    return f"{size / GIGABYTE:.1f} GB"
