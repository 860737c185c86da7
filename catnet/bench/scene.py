"""What a benchmark runs on: a few synthetic cases in a folder that is gone afterwards.

A scene sets CATNET_DATA, CATNET_RUNS and CATNET_CARDS, so nothing of the user's is touched. Its
folder bears the number of its process: what one that was killed left, the next one removes.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from catnet.bench.apart import Call
from catnet.data.card import Card, load_card
from catnet.data.store import Case, open_cases
from catnet.question import load_run
from catnet.runs import RunFolder, find_run_folder

HOMES = ("CATNET_DATA", "CATNET_RUNS", "CATNET_CARDS")


@dataclass(frozen=True)
class Size:
    """How large a scene is.

    plane, depth     of the prepared cases, in voxels
    raw              width of the scans before that
    cut, cuts        slices of the volumes that are cut into supervoxels, and how many for purity
    deep             slices and width of the volume that is to show how memory grows
    repeats          pairs of a short measurement; long ones take fewer
    """

    name: str
    plane: int
    depth: int
    raw: int
    cut: int
    cuts: int
    deep: tuple[int, int]
    min_size: int
    min_pixels: int
    model: dict[str, object] = field(hash=False)
    repeats: int


FULL = Size("full", 256, 30, 320, 36, 20, (400, 128), 5000, 200, {}, 5)
SMALL = {"encoder": "tu-test_resnet", "dim": 32, "rounds": 2}
QUICK = Size("quick", 64, 10, 80, 12, 2, (40, 64), 100, 20, SMALL, 2)
SIZES = {size.name: size for size in (FULL, QUICK)}


@dataclass(frozen=True)
class Scene:
    """Prepared cases, where the run file lies that is measured, and a process beside this one."""

    size: Size
    home: Path
    device: torch.device
    call: Call | None = field(default=None, compare=False)

    def apart(self, function: Call, *given: object) -> Any:
        """What `function(scene, *given)` gives in the process of the plain side."""
        return self.call(function, replace(self, call=None), *given)

    @property
    def raw(self) -> Path:
        """The scans as they came."""
        return self.home / "raw"

    @property
    def card(self) -> Card:
        """The card of the cases."""
        return load_card("bench")

    @property
    def cases(self) -> tuple[Case, ...]:
        """All of them; the first two are tested."""
        return open_cases(self.card)

    def run(self, *settings: str) -> RunFolder:
        """The run that is measured, with some settings changed; nothing is written."""
        return find_run_folder(load_run(self.home / "bench.yml", settings))
