"""Where curves are measured, and how: small networks, every repetition of a range in turns."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from catnet.bench.scene import FULL, QUICK, Scene, Size
from catnet.model.measure import seconds

MODEL = {"encoder": "tu-resnet18", "dim": 64, "rounds": 4}
GROWTH = Size("curves", 64, 12, 80, 12, 0, (0, 0), 100, 20, MODEL, 3)
TINY_GROWTH = replace(QUICK, name="quick curves", repeats=1)
SCENES = {FULL.name: GROWTH, QUICK.name: TINY_GROWTH}
RANGES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {  # whole, quick
    "cases": ((8, 16, 32, 64, 125, 250, 500), (2, 4, 8)),
    "slices": ((16, 32, 64, 96, 128, 192, 256), (4, 8, 16)),
    "shots": ((1, 2, 3, 4, 6, 8, 10), (1, 2, 3)),
    "rounds": ((0, 1, 2, 3, 4, 5, 6, 7, 8), (0, 1, 2, 3)),
    "sides": ((128, 192, 256, 320, 384, 448, 512), (32, 64, 96)),
    "batch": ((1, 2, 4, 6, 8, 12, 16), (1, 2, 4)),
    "loaders": ((0, 1, 2, 4), (0, 1, 2, 3)),
    "runs": ((1, 2, 4, 8, 16, 32, 64), (1, 2, 4)),
}


def places(scene: Scene, name: str) -> tuple[int, ...]:
    """Where a curve is measured."""
    return RANGES[name][scene.size == TINY_GROWTH]


def repeated(
    scene: Scene, works: Sequence[Callable[[], object]], *, times: int = 1
) -> tuple[tuple[float, ...], ...]:
    """Seconds of every work, over and over in turns, after one round to warm up.

    A work that is done `times` times takes that part of them.
    """
    for work in works:
        work()
    rounds = [
        [seconds(work, scene.device) / times for work in works] for _ in range(scene.size.repeats)
    ]
    return tuple(zip(*rounds, strict=True))
