"""The plain side's process: what it is asked, what it raises, and how it ends."""

import os
import signal
import sys
import time

import pytest

from catnet.bench.apart import apart
from catnet.errors import UserError


def end():
    os.kill(os.getpid(), signal.SIGKILL)


def mistake():
    raise UserError("this is to be mended")


def test_it_is_another_process_and_stays_the_same():
    with apart() as call:
        numbers = {call(os.getpid) for _ in range(3)}
        with pytest.raises(UserError, match="to be mended"):
            call(mistake)
        assert {call(os.getpid)} == numbers
    assert len(numbers) == 1
    assert os.getpid() not in numbers
    with pytest.raises(ProcessLookupError):
        os.kill(numbers.pop(), 0)


def test_killed_it_is_one_sentence():
    with (
        pytest.raises(UserError, match="was killed, most often for want of memory"),
        apart() as call,
    ):
        call(end)


def test_nobody_waits_for_what_it_does():
    before = signal.signal(signal.SIGALRM, lambda number, frame: sys.exit(number))
    with apart() as call:
        try:
            call(os.getpid)
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            with pytest.raises(SystemExit):
                call(time.sleep, 60)
        finally:
            signal.signal(signal.SIGALRM, before)
        start = time.monotonic()
    assert time.monotonic() - start < 20
