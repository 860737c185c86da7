"""Memory that is freed is used again; in processes of their own, since it cannot be undone."""

import os
import platform
import subprocess
import sys

import pytest
from trials import raising

from catnet.allocator import keep_freed_memory

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

FAULTS = """
import ctypes, resource, sys
from catnet.allocator import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "keep" else False
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 48 * 2**20

def make():
    blocks = [libc.malloc(size) for _ in range(2)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        libc.free(block)

make()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    make()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 5 * 2 * 48 * 2**20 // 4096


def faults(what, **environment):
    """Whether it is kept, and the page faults of ten blocks of 48 MiB."""
    others = ("MALLOC_", "GLIBC_TUNABLES")
    plain = {name: value for name, value in os.environ.items() if not name.startswith(others)}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, what],
        capture_output=True,
        text=True,
        check=True,
        env=plain | environment,
    )
    kept, count = map(int, done.stdout.split())
    return bool(kept), count


def test_what_is_freed_is_used_again():
    kept, count = faults("keep")
    assert kept
    assert count < PAGES / 20


def test_without_it_every_block_is_new():
    assert faults("leave")[1] > PAGES / 2


@pytest.mark.parametrize(
    "given",
    [
        {"MALLOC_MMAP_THRESHOLD_": "1048576"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1048576"},
    ],
)
def test_the_environment_goes_first(given):
    kept, count = faults("keep", **given)
    assert not kept
    assert count > PAGES / 2


@pytest.mark.parametrize("given", ["glibc.malloc.tcache_count=0", "glibc.malloc.hugetlb=1"])
def test_what_else_is_tuned_changes_nothing(given):
    assert faults("keep", GLIBC_TUNABLES=given)[0]


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr("catnet.allocator.platform.libc_ver", lambda: ("", ""))
    monkeypatch.setattr("catnet.allocator.ctypes.CDLL", raising(OSError("there is none")))
    assert not keep_freed_memory()
