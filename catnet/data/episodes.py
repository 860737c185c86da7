"""Training episodes: drawn as numbers from (seed, episode), then read from the prepared cases.

Supervoxel episodes ("Self-Supervision with Superpixels", Ouyang et al., ECCV 2020, arXiv
2007.09886, in 3D after Hansen et al., arXiv 2203.02048) take neighboring slices of one supervoxel
of one case; organ episodes take one organ in two different cases. Case, label and slices are drawn
in that order, each evenly, so a large case or a large supervoxel is not seen more often.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Int64, Integer
from numpy import ndarray
from numpy.random import Generator
from torch import Tensor

from catnet.config import DataSettings
from catnet.data.card import Card
from catnet.data.folds import training_slices
from catnet.data.slices import MappedSlices, ResidentSlices, Slices
from catnet.data.store import Case
from catnet.episode import Episode
from catnet.errors import UserError


class Place(NamedTuple):
    """One slice of one case."""

    case: int
    slice: int


@dataclass(frozen=True)
class Draw:
    """One episode as numbers: which label, on which support slices, on which query slice."""

    label: int
    support: tuple[Place, ...]
    query: Place


Option = TypeVar("Option")


def one_of(options: Sequence[Option] | ndarray, generator: Generator) -> Option:
    """What `generator.choice` gives, without making an array of the options."""
    return options[generator.integers(len(options))]


@runtime_checkable
class Sampler(Protocol):
    """Draws one episode; everything random comes from the generator it is given."""

    array: str

    def __call__(self, generator: Generator) -> Draw:
        """One episode."""


@dataclass(frozen=True)
class SupervoxelSampler:
    """Runs of neighboring slices of one supervoxel; one end is the query, at random."""

    starts: tuple[Mapping[int, Integer[ndarray, " _"]], ...]
    shots: int
    array: str = "supervoxels"

    def __call__(self, generator: Generator) -> Draw:
        """One episode."""
        case = one_of([i for i, runs in enumerate(self.starts) if runs], generator)
        label = one_of(list(self.starts[case]), generator)
        start = int(one_of(self.starts[case][label], generator))
        places = [Place(case, start + step) for step in range(self.shots + 1)]
        if generator.random() < 0.5:
            places.reverse()
        return Draw(label, tuple(places[:-1]), places[-1])


@dataclass(frozen=True)
class OrganSampler:
    """Slices of one base organ, the query in another case than the supports."""

    slices: Mapping[int, Mapping[int, Integer[ndarray, " _"]]]
    shots: int
    array: str = "label"

    def __call__(self, generator: Generator) -> Draw:
        """One episode."""
        label = one_of(list(self.slices), generator)
        found = self.slices[label]
        query, *supports = generator.permutation(list(found))
        chosen = [supports[shot % len(supports)] for shot in range(self.shots)]
        places = [Place(int(x), int(one_of(found[int(x)], generator))) for x in (query, *chosen)]
        return Draw(label, tuple(places[1:]), places[0])


@dataclass(frozen=True)
class Draws:
    """A batch of episodes as numbers, on the CPU: labels, and places of supports, then query."""

    label: Int64[Tensor, " b"]
    places: Int64[Tensor, "b n 2"]

    def pin_memory(self) -> "Draws":
        """The same numbers where a GPU can fetch them by itself."""
        return Draws(self.label.pin_memory(), self.places.pin_memory())


@dataclass(frozen=True)
class EpisodeSource:
    """Training episodes by number: `batch([k])` is a pure function of the seed and k."""

    cases: tuple[Case, ...]
    slices: Slices
    sampler: Sampler
    seed: int

    def generator(self, episode: int) -> Generator:
        """The source of everything random in an episode; no two share one."""
        return np.random.default_rng([self.seed, episode])

    def batch(self, generators: Sequence[Generator]) -> Episode:
        """One episode from each generator, unaugmented, where the slices lie."""
        return self.read(self.draw(generators))

    def draw(self, generators: Sequence[Generator]) -> Draws:
        """One episode from each generator, as numbers."""
        draws = [self.sampler(generator) for generator in generators]
        return Draws(
            torch.tensor([draw.label for draw in draws]),
            torch.tensor([[*draw.support, draw.query] for draw in draws]),
        )

    def read(self, draws: Draws) -> Episode:
        """The slices and masks of the episodes, where the slices lie."""
        images = self.slices.take("image", draws.places)
        masks = self.slices.masks(self.sampler.array, draws.places, draws.label)
        return Episode(
            support=rearrange(images[:, :-1], "b s h w -> b s 1 h w"),
            support_mask=masks[:, :-1],
            query=images[:, -1:],
            query_mask=masks[:, -1],
        )

    def resident(self, device: torch.device) -> "EpisodeSource":
        """The same episodes from slices that are held on a device."""
        names = ("image", self.sampler.array)
        return replace(self, slices=ResidentSlices(self.cases, names, device))


def open_source(
    card: Card, cases: tuple[Case, ...], settings: DataSettings, *, seed: int
) -> EpisodeSource:
    """Episodes of the training cases; raises `UserError` where not one can be made."""
    tested = card.tested_organs(settings.group)
    allowed = [training_slices(case, setting=settings.setting, organs=tested) for case in cases]
    if settings.labels == "supervoxels":
        check_cut(card, cases)
        sampler = supervoxel_sampler(cases, allowed, settings)
    else:
        base = {organ: n for organ, n in card.organs.items() if organ not in tested}
        sampler = organ_sampler(cases, allowed, settings, base=base)
    return EpisodeSource(cases, MappedSlices(cases), sampler, seed)


def check_cut(card: Card, cases: tuple[Case, ...]) -> None:
    """Raise `UserError` where a case's supervoxels were cut by other settings than the card's."""
    for case in cases:
        size = case.supervoxel_meta.min_size
        if size != card.supervoxels.min_size:
            raise UserError(
                f"{case.folder}: supervoxels were cut with min_size {size}, card {card.name} says "
                f"{card.supervoxels.min_size}; run `catnet supervoxels {card.name}` again"
            )


def supervoxel_sampler(
    cases: tuple[Case, ...], allowed: Sequence[Bool[ndarray, " d"]], settings: DataSettings
) -> SupervoxelSampler:
    """All runs of `shots` + 1 allowed slices, the label on each, large enough on one of them."""
    starts = []
    for case, usable in zip(cases, allowed, strict=True):
        pixels = np.array(case.supervoxel_meta.pixels) * usable[:, None]
        runs = runs_of(pixels, length=settings.shots + 1, min_pixels=settings.min_pixels)
        starts.append({label: found for label, found in runs.items() if label > 0})
    if not any(starts):
        raise UserError(
            f"no supervoxel of {len(cases)} training cases spans {settings.shots + 1} allowed "
            f"slices with {settings.min_pixels} pixels on one; lower data.min_pixels or data.shots"
        )
    return SupervoxelSampler(tuple(starts), settings.shots)


def runs_of(
    pixels: Integer[ndarray, "d labels"], *, length: int, min_pixels: int
) -> dict[int, Integer[ndarray, " _"]]:
    """First slices of runs of `length` slices on which a label is present, by label."""
    if pixels.shape[0] < length:
        return {}
    windows = np.lib.stride_tricks.sliding_window_view(pixels, length, axis=0)
    valid = (windows > 0).all(axis=-1) & (windows.max(axis=-1) >= min_pixels)
    return {int(k): np.flatnonzero(valid[:, k]) for k in np.flatnonzero(valid.any(axis=0))}


def organ_sampler(
    cases: tuple[Case, ...],
    allowed: Sequence[Bool[ndarray, " d"]],
    settings: DataSettings,
    *,
    base: Mapping[str, int],
) -> OrganSampler:
    """Slices of the base organs, for those that two cases show."""
    slices = {}
    for organ, number in base.items():
        shown = [
            np.flatnonzero(usable & (np.array(case.meta.pixels[organ]) >= settings.min_pixels))
            for case, usable in zip(cases, allowed, strict=True)
        ]
        found = {index: where for index, where in enumerate(shown) if where.size}
        if len(found) >= 2:
            slices[number] = found
    if not slices:
        raise UserError(
            f"no organ outside group {settings.group} is on an allowed slice of two training "
            "cases; choose another data.group, or data.labels=supervoxels"
        )
    return OrganSampler(slices, settings.shots)
