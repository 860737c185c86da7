"""The two sides of a training episode, part by part: the plain reference and the library."""

import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from catnet.bench.plain_episodes import plain_augmented, plain_episode, plain_pair
from catnet.bench.plain_network import plain_loss
from catnet.bench.scene import Scene
from catnet.data.episodes import EpisodeSource
from catnet.data.folds import split
from catnet.engine import Engine, start_engine
from catnet.episode import Episode
from catnet.loading import episodes, place_cases, training_batch
from catnet.model.loss import Objective
from catnet.model.measure import seconds
from catnet.model.networks import initial_model
from catnet.runs import RunFolder
from catnet.train import (
    build_objective,
    build_optimizer,
    learning_rate,
    open_training,
    set_rate,
)

IN_A_ROW = 10  # steps whose episodes are drawn one after the other, as a loader process does
DRAW, FORWARD, BACKWARD, UPDATE = "waiting for episodes", "forward", "backward", "optimizer"


@runtime_checkable
class Side(Protocol):
    """A way to train, in four parts."""

    device: torch.device
    batch: int

    def draw(self, step: int) -> Episode:
        """The episodes of a step, augmented, on the device."""

    def forward(self, episode: Episode) -> Float[Tensor, ""]:
        """The loss."""

    def update(self, step: int) -> None:
        """Change the weights by their gradients, which are then forgotten."""


@dataclass(frozen=True)
class PlainSide:
    """Batch 1 in float32, support and query encoded apart, one tensor after the other updated."""

    folder: RunFolder
    cases: tuple[Path, ...]
    device: torch.device
    model: nn.Module
    optimizer: torch.optim.Optimizer
    batch: int = 1

    @classmethod
    def of(cls, scene: Scene, *settings: str) -> "PlainSide":
        """The plain side of a run."""
        folder = scene.run(*settings)
        train = folder.run.train
        model = initial_model(folder.run.model, seed=folder.run.seed).to(scene.device).train()
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=train.rate,
            momentum=train.momentum,
            weight_decay=train.weight_decay,
            foreach=False,
            fused=False,
        )
        cases = split(folder.card, scene.cases, folder.run.data.fold).training
        paths = tuple(case.folder for case in cases)
        return cls(folder, paths, scene.device, model, optimizer)

    def draw(self, step: int) -> Episode:
        """One episode; everything is read, looked for and interpolated anew."""
        generator = np.random.default_rng([self.folder.run.seed, step])
        data, augment = self.folder.run.data, self.folder.run.augment
        pair = plain_pair(self.cases, generator, min_pixels=data.min_pixels)
        pair = plain_augmented(pair, generator, augment)
        return plain_episode(pair, device=self.device, dtype=torch.float32)

    def forward(self, episode: Episode) -> Float[Tensor, ""]:
        """The plain network's loss."""
        return plain_loss(self.model, episode, alignment=self.folder.run.train.alignment)

    def update(self, step: int) -> None:
        """Clip, update and forget."""
        parameters = self.model.parameters()
        nn.utils.clip_grad_norm_(parameters, self.folder.run.train.clip, foreach=False)
        self.optimizer.step()
        self.optimizer.zero_grad()


@dataclass(frozen=True)
class LibrarySide:
    """What `catnet.train.train` does in a step, through the same functions.

    `ahead` are the episodes that loader processes make meanwhile, where they are asked for.
    """

    folder: RunFolder
    engine: Engine
    source: EpisodeSource
    objective: Objective
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    ahead: Iterator[Episode] | None = None

    @classmethod
    def of(cls, scene: Scene, *settings: str, loaders: bool = True) -> "LibrarySide":
        """The library's side of a run, whose episodes loader processes make or it makes itself."""
        folder = scene.run(*settings)
        _, source = open_training(folder)
        engine = start_engine(folder.run)
        source = place_cases(source, folder.run, engine=engine)
        objective = engine.place(build_objective(folder.run))
        optimizer = build_optimizer(objective, folder.run.train)
        ahead = episodes(source, folder.run, engine=engine, start=0) if loaders else None
        return cls(folder, engine, source, objective, engine.wrap(objective), optimizer, ahead)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.engine.device

    @property
    def batch(self) -> int:
        """Episodes a step."""
        return self.folder.run.train.batch

    def draw(self, step: int) -> Episode:
        """The episodes of a step, or the next ones that are made ahead."""
        if self.ahead is not None:
            return next(self.ahead)
        return training_batch(self.source, self.folder.run, engine=self.engine, step=step)

    def forward(self, episode: Episode) -> Float[Tensor, ""]:
        """The objective's loss."""
        with self.engine.autocast():
            return self.wrapped(episode).total

    def update(self, step: int) -> None:
        """Clip, update and forget."""
        train = self.folder.run.train
        set_rate(self.optimizer, learning_rate(train, step))
        if train.clip:
            nn.utils.clip_grad_norm_(self.objective.parameters(), train.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()


def timed_drawing(side: Side, turn: int) -> float:
    """Seconds in which an episode is drawn and augmented, by the mean of `IN_A_ROW` steps."""

    def draw() -> None:
        for step in range(turn * IN_A_ROW, (turn + 1) * IN_A_ROW):
            side.draw(step)

    return seconds(draw, side.device) / IN_A_ROW / side.batch


@lru_cache(maxsize=1)
def plain_side(scene: Scene) -> PlainSide:
    """The plain side of a process that measures it several times."""
    return PlainSide.of(scene)


def timed_plain(scene: Scene, step: int) -> dict[str, float]:
    """`timed_episode` of the plain side."""
    return timed_episode(plain_side(scene), step)


def plain_faults(scene: Scene, step: int) -> int:
    """`page_faults` of the plain side."""
    return page_faults(plain_side(scene), step)


def page_faults(side: Side, step: int) -> int:
    """How often an episode, once drawn, interrupts the process for memory that is new to it."""
    episode = side.draw(step)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    side.forward(episode).backward()
    side.update(step)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // side.batch


def timed_episode(side: Side, step: int) -> dict[str, float]:
    """Seconds of every part of a step, for each of its episodes, and of all together."""
    kept: dict[str, object] = {}

    def keep(name: str, make: Callable[[], object]) -> Callable[[], None]:
        return lambda: kept.__setitem__(name, make())

    parts = {
        DRAW: keep("episode", lambda: side.draw(step)),
        FORWARD: keep("loss", lambda: side.forward(kept["episode"])),
        BACKWARD: lambda: kept["loss"].backward(),
        UPDATE: lambda: side.update(step),
    }
    spent = {name: seconds(part, side.device) / side.batch for name, part in parts.items()}
    return {**spent, "whole episode": sum(spent.values())}
