"""Peak memory of one side's work in a process of its own, which imports and computes nothing else.

    python -m catnet.bench.memory SIDE WORK SIZE SCENE DEVICE

prints bytes: on a CPU the most that the process held, torch included; on a GPU the most that its
tensors held there. The homes of the scene come with the environment.
"""

import subprocess
import sys
from pathlib import Path

import torch

from catnet.bench.plain_evaluation import plain_volume
from catnet.bench.scene import SIZES, Scene
from catnet.bench.sides import LibrarySide, PlainSide, timed_episode
from catnet.bench.volumes import copy_case, evaluation_model, library_masks, library_predictor
from catnet.data.store import Case
from catnet.errors import UserError
from catnet.journal import peak_resident

TRAINING, FIXED, EVALUATION, DEEP = "training", "fixed", "evaluation", "deep"
PLAIN, LIBRARY = "plain", "library"
STEPS = 3  # optimizer state comes with the first; a third holds what the second does
MOST = 6  # slices of an organ after which the plain evaluation ends: it keeps nothing of them


def peak_memory(side: str, work: str, scene: Scene) -> float:
    """MiB that a side's work takes at most; raises `UserError` where its process failed."""
    command = [sys.executable, "-m", "catnet.bench.memory"]
    given = [side, work, scene.size.name, str(scene.home), str(scene.device)]
    done = subprocess.run([*command, *given], capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        raise UserError(f"memory of {side} {work}: its process failed ({last}); free some memory")
    return int(done.stdout.split()[-1]) / 2**20


def deepen(scene: Scene) -> None:
    """Write the volume of many slices, and its support."""
    depth, plane = scene.size.deep
    copy_case(scene.cases[0], scene.home / "deep" / "query", depth=depth, plane=plane)
    copy_case(scene.cases[1], scene.home / "deep" / "support", depth=scene.size.depth, plane=plane)


def do(side: str, work: str, scene: Scene) -> None:
    """What is measured."""
    if work in (TRAINING, FIXED):
        settings = ["model.prior=fixed"] if work == FIXED else []
        trainer = PlainSide.of(scene) if side == PLAIN else LibrarySide.of(scene, *settings)
        for step in range(STEPS):
            timed_episode(trainer, step)
        return
    query, support = scene.cases[:2]
    organs = scene.card.organs
    if work == DEEP:
        query, support = (Case(scene.home / "deep" / name) for name in ("query", "support"))
        organs = dict(list(organs.items())[:1])
    if side == PLAIN:
        model = evaluation_model(scene.run()).to(scene.device)
        pair = query.folder, support.folder
        plain_volume(model, *pair, organs=organs, protocol="EP2", most=MOST)
        return
    predictor = library_predictor(scene.run(), scene)
    library_masks(predictor, query, support, organs=organs, protocols=("EP2",))


def held(device: torch.device) -> int:
    """Bytes held at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident()


def main(given: list[str]) -> None:
    """Do one side's work, then print what it took."""
    side, work, size, home, device = given
    scene = Scene(SIZES[size], Path(home), torch.device(device))
    do(side, work, scene)
    print(held(scene.device))


if __name__ == "__main__":
    main(sys.argv[1:])
