"""One query slice and the support slice that segments it, for one organ: found from names."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catnet.data.folds import split, support_sets
from catnet.data.store import Case, open_cases
from catnet.errors import UserError
from catnet.evaluate.protocol import middle, organ_slices, plan
from catnet.runs import RunFolder

Slice = Float[ndarray, "h w"]


@dataclass(frozen=True)
class Scene:
    """A slice of the query and a slice of the support, by number, and the organ in question.

    `tested` says whether the query is one of the run's tested cases, on which it never trained.
    """

    organ: str
    label: int
    query: Case
    number: int
    support: Case
    support_number: int
    tested: bool

    @property
    def image(self) -> Slice:
        """The query slice; a copy, since torch takes no read-only memory."""
        return np.array(self.query.image[self.number])

    @property
    def truth(self) -> Slice:
        """The organ's true mask on it, which may be empty."""
        return (self.query.label[self.number] == self.label).astype(np.float32)

    @property
    def support_image(self) -> Slice:
        """The support slice."""
        return np.array(self.support.image[self.support_number])

    @property
    def support_mask(self) -> Slice:
        """The organ's mask on it."""
        return (self.support.label[self.support_number] == self.label).astype(np.float32)


def find_scene(
    folder: RunFolder, *, case: str, number: int, organ: str | None, support: str | None
) -> Scene:
    """The scene that these names mean; raises `UserError` for what is not there.

    Without `organ`, the one that covers most of the slice, among those that the run is tested on;
    without `support`, the fold's. The support slice is that of EP1 where the slice shows the organ,
    of EP2 elsewhere.
    """
    cases = open_cases(folder.card)
    query = find_case(cases, case, option="--case")
    if not 0 <= number < query.depth:
        raise UserError(
            f"--slice {number} is not in case {query.name}, which has 0 to {query.depth - 1}"
        )
    organ = organ or largest_organ(folder, query, number)
    if organ not in folder.card.organs:
        known = ", ".join(folder.card.organs)
        raise UserError(f"--organ {organ!r} is not in card {folder.card.name}; it has {known}")
    chosen = choose_support(folder, cases, query=query, organ=organ, name=support)
    return Scene(
        organ=organ,
        label=folder.card.organs[organ],
        query=query,
        number=number,
        support=chosen,
        support_number=support_slice(organ, query=query, number=number, support=chosen),
        tested=query in split(folder.card, cases, folder.run.data.fold).tested,
    )


def find_case(cases: tuple[Case, ...], name: str, *, option: str) -> Case:
    """The prepared case of this name."""
    known = {case.name: case for case in cases}
    if name not in known:
        raise UserError(f"{option} {name!r} is no prepared case; there are {', '.join(known)}")
    return known[name]


def largest_organ(folder: RunFolder, query: Case, number: int) -> str:
    """The tested organ with most pixels on the slice."""
    organs = folder.card.tested_organs(folder.run.data.group)
    largest = max(organs, key=lambda organ: query.meta.pixels[organ][number])
    if not query.meta.pixels[largest][number]:
        raise UserError(
            f"slice {number} of case {query.name} shows no organ that this run is tested on; "
            f"{where_shown(query, organs)}, or name one with --organ"
        )
    return largest


def choose_support(
    folder: RunFolder, cases: tuple[Case, ...], *, query: Case, organ: str, name: str | None
) -> Case:
    """The case of this name; or the fold's support, or its first other case that shows `organ`."""
    if name is not None:
        support = find_case(cases, name, option="--support")
        if support == query:
            raise UserError(f"--support {name} is the query itself; choose another case")
        if not organ_slices(support, organ):
            raise UserError(f"--support {name} does not show the {organ}; choose another case")
        return support
    settings = folder.run.evaluate
    tested = split(folder.card, cases, folder.run.data.fold).tested
    supports, queries = support_sets(
        tested, policy=settings.support, index=settings.support_index, shots=settings.shots
    )[0]
    for case in (*supports, *queries, *cases):
        if case != query and organ_slices(case, organ):
            return case
    raise UserError(f"no case but {query.name} shows the {organ}; prepare another one")


def support_slice(organ: str, *, query: Case, number: int, support: Case) -> int:
    """The support slice of the EP1 chunk that holds the query slice, or the organ's middle one."""
    for chunk in plan("EP1", organ=organ, supports=(support,), query=query):
        if number in chunk.query:
            return chunk.support[0]
    return middle(organ_slices(support, organ))


def where_shown(case: Case, organs: Iterable[str]) -> str:
    """Advice on which slices show some of the organs."""
    slices = sorted({number for organ in organs for number in organ_slices(case, organ)})
    if not slices:
        return "choose another case"
    return f"choose a slice from {slices[0]} to {slices[-1]}"
