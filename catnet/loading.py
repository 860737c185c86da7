"""Training episodes, step by step, made ahead of the step that needs them.

    numbers (labels, places, augmentation) -> pixels -> augmented, on the device of the run

Step k is a pure function of (seed, k), so it makes no difference which process makes it, or when.
`machine.loaders` processes do all of it on a CPU. For a GPU they leave the augmentation to it, and
where the slices lie on the GPU (`machine.cases`) everything but the numbers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.utils.data import DataLoader, Dataset

from catnet.augment import Params, Recipe, augment, draw
from catnet.config import AugmentSettings, Run
from catnet.data.episodes import Draws, EpisodeSource
from catnet.data.slices import resident_bytes
from catnet.data.store import Case
from catnet.engine import Engine
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.processes import leave_signals_to_parent

AHEAD = 2  # steps that every loader process is ahead
ROOM = 0.5  # share of a GPU's free memory that the cases may take


@dataclass(frozen=True)
class Begun:
    """A step's numbers, and its episodes as far as they could be made without the device."""

    draws: Draws
    params: Params
    episode: Episode | None

    def pin_memory(self) -> "Begun":
        """The same where a GPU can fetch it by itself; torch's loader asks for it."""
        episode = None if self.episode is None else self.episode.pin_memory()
        return Begun(self.draws.pin_memory(), self.params.pin_memory(), episode)


def training_batch(source: EpisodeSource, run: Run, *, engine: Engine, step: int) -> Episode:
    """This process's share of the episodes of a step, augmented on the device."""
    return finish(begin(source, run, engine=engine, step=step), source, engine=engine)


def whole_batch(source: EpisodeSource, run: Run, engine: Engine, *, step: int) -> Episode:
    """The episodes of a step, counted from 1, as one process alone would draw them."""
    return training_batch(source, run, engine=replace(engine, rank=0, world=1), step=step - 1)


def begin(source: EpisodeSource, run: Run, *, engine: Engine, step: int) -> Begun:
    """The numbers of a step, and its pixels where they lie on the host."""
    share = run.train.batch // engine.world
    first = step * run.train.batch + engine.rank * share
    generators = [source.generator(number) for number in range(first, first + share)]
    draws = source.draw(generators)
    height, width = source.slices.size
    params = draw(recipe_of(run.augment), generators, height=height, width=width)
    on_host = source.slices.device.type == "cpu"
    return Begun(draws, params, source.read(draws) if on_host else None)


@lru_cache(maxsize=8)
def recipe_of(settings: AugmentSettings) -> Recipe:
    """The recipe that a run's settings describe."""
    return Recipe(**settings.model_dump())


def finish(begun: Begun, source: EpisodeSource, *, engine: Engine) -> Episode:
    """The augmented episodes of a step, on the device; the host waits for nothing."""
    episode = source.read(begun.draws) if begun.episode is None else begun.episode
    return augment(episode.to(engine.device), begun.params.to(engine.device))


@dataclass(frozen=True)
class Steps(Dataset):
    """What a loader process makes of a step; a user's mistake is handed on, not raised."""

    source: EpisodeSource
    run: Run
    engine: Engine

    def __getitem__(self, step: int) -> Episode | Begun | UserError:
        """The whole step on a CPU, else what can be done without the device."""
        try:
            begun = begin(self.source, self.run, engine=self.engine, step=step)
            if self.engine.device.type == "cpu":
                return finish(begun, self.source, engine=self.engine)
            return begun
        except UserError as error:
            return error


def episodes(source: EpisodeSource, run: Run, *, engine: Engine, start: int) -> Iterator[Episode]:
    """The episodes of the steps from `start` to the last one, in order.

    Raises `UserError` where a slice cannot be read, or a loader process was ended.
    """
    loader = DataLoader(
        Steps(source, run, engine),
        batch_size=None,
        sampler=range(start, run.train.steps),
        num_workers=run.machine.loaders,
        prefetch_factor=AHEAD if run.machine.loaders else None,
        worker_init_fn=begin_loading,
        pin_memory=engine.device.type == "cuda",
        generator=torch.Generator(),  # else torch draws a seed from the global one
    )
    try:
        for made in loader:
            if isinstance(made, UserError):
                raise made
            yield made if isinstance(made, Episode) else finish(made, source, engine=engine)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a loader process ended before its time ({str(error).partition('.')[0]}); it may lack "
            "memory: lower machine.loaders, or train.batch"
        ) from None


def begin_loading(worker: int) -> None:
    """In a loader process: signals are for the process that trains, which ends this one."""
    leave_signals_to_parent()


def place_cases(source: EpisodeSource, run: Run, *, engine: Engine) -> EpisodeSource:
    """The source as `machine.cases` says: mapped, resident, or resident where a GPU has room."""
    wanted = run.machine.cases
    if wanted == "auto":
        wanted = "resident" if has_room(source.cases, engine.device) else "mapped"
    return source.resident(engine.device) if wanted == "resident" else source


def has_room(cases: tuple[Case, ...], device: torch.device) -> bool:
    """Whether all cases fit well into what a GPU has left; on a CPU the disk's cache serves."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return resident_bytes(cases) < ROOM * free
