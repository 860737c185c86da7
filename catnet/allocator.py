"""Memory that a process frees stays its own, so that the next tensor need not ask for it again.

glibc gives large blocks back to the system as soon as they are freed. The tensors of the next step
are then new to it, and every 4 KiB of them interrupts the process once: up to a third of the time
that a training step takes on a CPU, more or less of it by the luck of what was freed first. The
process gets no smaller in return.
"""

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as malloc.h numbers what mallopt changes
LARGEST = 2**30, 2**25  # bytes, above which a block is given back; older versions take the second
NAMED = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
TUNABLES = ("glibc.malloc.mmap_threshold=", "glibc.malloc.trim_threshold=")


def keep_freed_memory() -> bool:
    """From now on keep what is freed for the next tensor; whether that is so.

    It is not where the C library is another one, and where the environment sets it otherwise.
    """
    tuned = os.environ.get("GLIBC_TUNABLES", "")
    set_otherwise = any(map(os.environ.get, NAMED)) or any(name in tuned for name in TUNABLES)
    if set_otherwise or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    kept = any(libc.mallopt(MMAP_THRESHOLD, most) for most in LARGEST)
    return bool(libc.mallopt(TRIM_THRESHOLD, LARGEST[0])) and kept
