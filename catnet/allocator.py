"""Memory that a process frees stays its own, so that the next tensor need not ask for it again.

glibc gives large blocks back to the system as soon as they are freed. The tensors of the next step
are then new to it, and every 4 KiB of them interrupts the process once: up to a third of the time
that a training step takes on a CPU, more or less of it by the luck of what was freed first.
"""

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers what mallopt changes
MOST = 2**30  # bytes: what is larger is given back all the same
NAMED = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """From now on keep what is freed for the next tensor; whether that is so.

    It is not where the C library is another one, and where the environment sets it otherwise.
    """
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in NAMED):
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(what, MOST) for what in (MMAP_THRESHOLD, TRIM_THRESHOLD))
