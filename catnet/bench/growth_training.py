"""How cost grows with what a training step is given: shots, rounds, pixels, batch, processes."""

from collections.abc import Callable
from functools import partial

import torch

from catnet.bench.fits import Curve
from catnet.bench.ranges import TINY_GROWTH, places, repeated
from catnet.bench.scene import Scene
from catnet.bench.sides import LibrarySide
from catnet.config import MachineSettings
from catnet.episode import Episode
from catnet.model.measure import seconds
from catnet.runs import create_run_folder
from catnet.train import train

TRAINED = 24  # steps of a short run


def training_curve(
    name: str,
    over: str,
    why: str,
    make: Callable[[Scene, int], tuple[LibrarySide, Episode]],
    *,
    place: Callable[[int], float] = float,
    most: float = 1.0,
) -> Callable[[Scene], list[Curve]]:
    """A curve of one training step; `make` gives it for every place."""

    def measure(scene: Scene) -> list[Curve]:
        works = [partial(step, *make(scene, value)) for value in places(scene, name)]
        where = tuple(place(value) for value in places(scene, name))
        samples = repeated(scene, works)
        return [Curve(name, "a training step", over, where, samples, most, why)]

    return measure


def step(side: LibrarySide, episode: Episode) -> None:
    """Forward, backward and update."""
    side.forward(episode).backward()
    side.update(0)


def noise(scene: Scene, *, batch: int = 1, shots: int = 1, side: int = 128) -> Episode:
    """Episodes of noise with a disk for a mask."""
    if scene.size == TINY_GROWTH and side == 128:
        side = 64
    generator = torch.Generator().manual_seed(0)
    row, column = torch.meshgrid(*(torch.linspace(-1, 1, side),) * 2, indexing="ij")
    disk = (row**2 + column**2 < 0.2).float()
    return Episode(
        support=torch.randn(batch, shots, 1, side, side, generator=generator),
        support_mask=disk.expand(batch, shots, -1, -1),
        query=torch.randn(batch, 1, side, side, generator=generator),
        query_mask=disk.expand(batch, -1, -1),
    ).to(scene.device)


def loading(scene: Scene) -> list[Curve]:
    """Training with so many processes that prepare episodes, where there is a setting for it."""
    if "loaders" not in MachineSettings.model_fields:
        return []
    spent = []
    for count in places(scene, "loaders"):
        folder = create_run_folder(
            scene.run(f"machine.loaders={count}", f"train.steps={TRAINED}", f"seed={count}").run
        )

        def work(folder: object = folder) -> None:
            train(folder, report=lambda progress: None, say=lambda text: None)

        spent.append((seconds(work, scene.device) / TRAINED,))
    why = "they prepare what the training takes next; beyond the cores they wait for each other"
    where = places(scene, "loaders")
    return [Curve("loaders", "a step of a short run", "processes", where, tuple(spent), 1.0, why)]
