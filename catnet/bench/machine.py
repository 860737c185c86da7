"""What a measurement was taken on, and how fast that multiplies matrices."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

import torch

from catnet.model.measure import seconds
from catnet.runs import commit

UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16")


def describe_machine(device: torch.device, command: Sequence[str]) -> dict[str, object]:
    """Processor, memory, graphics card, torch, commit, date and command."""
    facts = processor()
    return {
        **facts,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(command),
        "load": os.getloadavg()[0],
    }


def processor() -> dict[str, object]:
    """Name, usable cores and vector units, as Linux tells them; elsewhere what Python knows."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    pairs = (line.partition(":")[::2] for line in text.splitlines())
    known = {name.strip(): value.strip() for name, value in pairs}
    flags = known.get("flags", "").split()
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    place = "family {}, model {}".format(*(known.get(k, "?") for k in ("cpu family", "model")))
    name = known.get("model name") or platform.processor() or platform.machine()
    return {
        "cpu": f"{name} ({place})" if known else name,
        "cores": cores,
        "instructions": [unit for unit in UNITS if unit in flags],
    }


def matrix_rate(device: torch.device, dtype: torch.dtype, *, sizes: Sequence[int]) -> float:
    """Floating-point operations a second of square matrix products; median over the sizes.

    Of every size the best of five, so that a busy moment does not lower the bar.
    """
    rates = []
    for size in sizes:
        one, other = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        one @ other
        spent = min(seconds(lambda a=one, b=other: a @ b, device) for _ in range(5))
        rates.append(2 * size**3 / spent)
    return median(rates)
