"""How much a training episode computes, and which part of the machine's rate it reaches."""

from dataclasses import dataclass
from statistics import median

import torch

from catnet.bench.machine import matrix_rate
from catnet.bench.operations import Operations, count_operations
from catnet.bench.scene import Scene
from catnet.bench.sides import LibrarySide, PlainSide, timed_episode
from catnet.evaluate.run import DTYPE

MATRICES = {"full": (1024, 2048, 3072), "quick": (128, 256, 512)}
FULL_RUNS = 3


@dataclass(frozen=True)
class Reach:
    """One precision: the rate of matrix products here, and what of it training reaches."""

    precision: str
    matrix: float
    seconds: float
    operations: int

    @property
    def training(self) -> float:
        """Operations a second of a whole training episode."""
        return self.operations / self.seconds

    def summary(self) -> dict[str, object]:
        """As numbers for a file."""
        return {
            "precision": self.precision,
            "matrix_operations_a_second": self.matrix,
            "training_operations_a_second": self.training,
            "fraction": self.training / self.matrix,
            "episode_seconds": self.seconds,
        }


@dataclass(frozen=True)
class Speed:
    """Operations of an episode on both sides, and what either precision reaches."""

    plain: Operations
    library: Operations
    reaches: tuple[Reach, ...]

    def summary(self) -> dict[str, object]:
        """As numbers for a file."""
        sides = {"plain": self.plain, "library": self.library}
        counted = {
            name: {"forward": found.forward, "backward": found.backward, "total": found.total}
            for name, found in sides.items()
        }
        return {"operations": counted, "reached": [reach.summary() for reach in self.reaches]}


def measure_speed(scene: Scene) -> Speed:
    """Count and time the default training episode at batch 1, in either precision."""
    plain = count_operations(PlainSide.of(scene))
    library = count_operations(LibrarySide.of(scene))
    return Speed(plain, library, tuple(reach(scene, name, library.total) for name in DTYPE))


def reach(scene: Scene, precision: str, operations: int) -> Reach:
    """The median of a few episodes after one to warm up."""
    side = LibrarySide.of(scene, f"train.precision={precision}")
    spent = [timed_episode(side, step)["whole episode"] for step in range(FULL_RUNS + 1)][1:]
    with torch.no_grad():
        rate = matrix_rate(scene.device, DTYPE[precision], sizes=MATRICES[scene.size.name])
    return Reach(precision, rate, median(spent), operations)
