"""What a trained network does with a query, round by round: one picture a case."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catnet.data.card import Card
from catnet.data.store import Case
from catnet.evaluate.predictors import NetworkPredictor, Support
from catnet.evaluate.tasks import Task
from catnet.model.encoder import Encoded
from catnet.pictures import PREDICTED, TRUTH, Panel, save_panels


def draw_case(
    path: Path,
    tasks: Sequence[Task],
    predictor: NetworkPredictor,
    *,
    query: Case,
    supports: Sequence[Case],
    card: Card,
) -> None:
    """Support, then M_0 .. M_N, for every organ under the first protocol that has it."""
    by_organ: dict[str, Task] = {}
    for task in tasks:
        by_organ.setdefault(task.organ, task)
    encoded = encode_shown(predictor, by_organ.values(), query=query)
    rows = [
        draw_organ(
            task,
            predictor,
            encoded=encoded[shown(task).place],
            query=query,
            support=supports[0],
            number=card.organs[organ],
        )
        for organ, task in by_organ.items()
    ]
    if rows:
        shots = ", ".join(case.name for case in supports)
        title = f"case {query.name} by support {shots}, {tasks[0].protocol}"
        save_panels(path, rows, flip=card.orientation[1] == "A", title=title)


@dataclass(frozen=True)
class Shown:
    """What a row shows: a slice of the query, and the support of its chunk with its first slice."""

    place: int
    support: Support
    source: int


def shown(task: Task) -> Shown:
    """The middle slice of the middle chunk; the first shot stands for the support."""
    middle = len(task.chunks) // 2
    chunk = task.chunks[middle]
    return Shown(chunk.query[len(chunk.query) // 2], task.supports[middle], chunk.support[0])


def encode_shown(
    predictor: NetworkPredictor, tasks: Iterable[Task], *, query: Case
) -> dict[int, Encoded]:
    """The slices that these tasks show, each once, however many organs have it in their middle."""
    places = {shown(task).place for task in tasks}
    return {place: predictor.query(np.array(query.image[[place]])) for place in sorted(places)}


def draw_organ(
    task: Task,
    predictor: NetworkPredictor,
    *,
    encoded: Encoded,
    query: Case,
    support: Case,
    number: int,
) -> list[Panel]:
    """One row, on the slice of the query that is `shown`, which is given `encoded`."""
    what = shown(task)
    image = np.asarray(query.image[what.place])
    truth = np.asarray(query.label[what.place] == number, dtype=np.float32)
    drawn = np.asarray(support.label[what.source] == number, dtype=np.float32)
    rounds = predictor.predict(what.support, encoded, 1).rounds
    title = f"{task.organ}, support {what.source}"
    first = Panel(title, np.asarray(support.image[what.source]), {TRUTH: drawn})
    return [first] + [
        Panel(
            f"query {what.place}, M_{number}",
            image,
            {TRUTH: truth, PREDICTED: mask[0].cpu().numpy()},
        )
        for number, mask in enumerate(rounds)
    ]
