"""A model with its supports, encoded once: ready for any number of queries.

The protocol is EP2 (`evaluate.protocol`): one slice of each support, the middle of the organ's
extent there, and every slice of the query, of which nothing is known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from catnet.arrays import Volume
from catnet.data.card import Card
from catnet.errors import UserError
from catnet.evaluate.predictors import Support
from catnet.evaluate.protocol import middle
from catnet.predict.models import Model, open_model
from catnet.predict.scans import PLAIN_NAME, Labelled, plain_card, prepare_support

BATCH = 8  # slices that the model sees at once


@dataclass(frozen=True)
class Request:
    """What to segment with: a model, supports (image, label), and organs by number (all if none).

    A name of None is the card's, or `label N`.
    """

    model: str
    supports: tuple[tuple[Path, Path], ...]
    organs: tuple[tuple[int, str | None], ...] = ()
    card: str | None = None
    accelerator: str = "auto"
    resample_labels: bool = False


@dataclass(frozen=True)
class Session:
    """What every query is segmented with; organs are by number, in order."""

    model: Model
    card: Card
    shots: tuple[Labelled, ...]
    organs: dict[int, str]
    supports: dict[int, Support]


def open_session(request: Request) -> Session:
    """Load the model, prepare and encode the supports."""
    model = open_model(request.model, card=request.card, accelerator=request.accelerator)
    card = model.card or plain_card(request.supports)
    labelled = [
        prepare_support(card, image, label, resample_labels=request.resample_labels)
        for image, label in request.supports
    ]
    organs = choose_organs(request.organs, labelled, card=card)
    if model.card is None:
        model = replace(model, card=card)
    supports = {
        number: encode(model, labelled, number=number, name=name, card=card)
        for number, name in organs.items()
    }
    return Session(model, card, tuple(labelled), organs, supports)


def choose_organs(
    wanted: Sequence[tuple[int, str | None]], labelled: Sequence[Labelled], *, card: Card
) -> dict[int, str]:
    """Number and name of what is segmented; raises `UserError` for what no support shows.

    The card's names hold only where it knows every number of the labels: another data set may mean
    another organ by the same number.
    """
    there = sorted({number for shot in labelled for number in shot.numbers})
    own = own_names(labelled)
    names = own or {number: organ for organ, number in card.organs.items()}
    others = () if own else card.other_labels
    known = bool(own) or (card.name != PLAIN_NAME and set(there) <= {*names, *others})
    labels = {number: f"label {number}" for number in there} | (names if known else {})
    listing = ", ".join(f"{n} ({labels[n]})" if known and n in names else f"{n}" for n in there)
    for number, _ in wanted:
        if number not in there:
            raise UserError(f"--organ {number}: no support's label holds it; there are {listing}")
    check_wanted(wanted)
    if not wanted:
        wanted = [(number, None) for number in there if number in names or not known]
    if not wanted:
        raise UserError(
            f"{labelled[0].source}: shows none of the organs of card {card.name}; name one of "
            f"{listing} with --organ"
        )
    found = {number: name or labels[number] for number, name in wanted}
    if len(set(found.values())) < len(found):
        raise UserError(
            f"--organ: two organs would be called the same among {', '.join(found.values())}; give "
            "each a name of its own"
        )
    return found


def check_wanted(wanted: Sequence[tuple[int, str | None]]) -> None:
    """Raise `UserError` for a number or a name that stands twice: one of the two would be lost."""
    for place, what in enumerate(("number", "name")):
        given = [one[place] for one in wanted if one[place] is not None]
        twice = next((one for one in given if given.count(one) > 1), None)
        if twice is not None:
            raise UserError(f"--organ: the {what} {twice!r} stands twice; give each organ once")


def own_names(labelled: Sequence[Labelled]) -> dict[int, str]:
    """What the supports' labels call their numbers; raises `UserError` where two disagree."""
    found: dict[int, str] = {}
    for shot in labelled:
        for number, name in shot.names.items():
            if found.setdefault(number, name).casefold() != name.casefold():
                raise UserError(
                    f"{shot.source}: its segment {number} is {name}, that of another support "
                    f"{found[number]}; give supports whose segments are in one order"
                )
    return found


def encode(
    model: Model, labelled: Sequence[Labelled], *, number: int, name: str, card: Card
) -> Support:
    """The middle slice of an organ in every support that shows it, encoded once."""
    images, masks = [], []
    for shot in labelled:
        slices = np.flatnonzero((shot.label == number).any(axis=(1, 2))).tolist()
        if slices:
            place = middle(slices)
            images.append(shot.prepared.image[place])
            masks.append((shot.label[place] == number).astype(np.float32))
    if not images:
        source = next(shot.source for shot in labelled if number in shot.numbers)
        raise UserError(
            f"{source}: {name} ({number}) lies outside of the {card.size[0]} x {card.size[1]} "
            f"voxels that card {card.name} keeps; give a support that shows it in the middle"
        )
    return model.predictor.support(np.stack(images), np.stack(masks))


def probabilities(session: Session, image: Volume) -> Iterator[Float32[ndarray, "o n h w"]]:
    """Every organ in some slices at a time, from the first slice to the last."""
    predictor = session.model.predictor
    for start in range(0, len(image), BATCH):
        batch = image[start : start + BATCH]
        encoded = predictor.query(batch)
        yield np.stack(
            [predictor.segment(one, encoded, len(batch)) for one in session.supports.values()]
        )
