"""What a trained network does with a query, round by round: one picture a case."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from catnet.data.card import Card
from catnet.data.store import Case
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.tasks import Task
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
    rows = [
        draw_organ(task, predictor, query=query, support=supports[0], number=card.organs[organ])
        for organ, task in by_organ.items()
    ]
    if rows:
        shots = ", ".join(case.name for case in supports)
        title = f"case {query.name} by support {shots}, {tasks[0].protocol}"
        save_panels(path, rows, flip=card.orientation[1] == "A", title=title)


def draw_organ(
    task: Task, predictor: NetworkPredictor, *, query: Case, support: Case, number: int
) -> list[Panel]:
    """One row, on the middle slice of the middle chunk; the first shot stands for the support."""
    middle = len(task.chunks) // 2
    chunk = task.chunks[middle]
    place, source = chunk.query[len(chunk.query) // 2], chunk.support[0]
    image = np.array(query.image[place])  # a copy: torch takes no read-only memory
    truth = np.asarray(query.label[place] == number, dtype=np.float32)
    shown = np.asarray(support.label[source] == number, dtype=np.float32)
    encoded = predictor.query(image[np.newaxis])
    rounds = predictor.predict(task.supports[middle], encoded, 1).rounds
    first = Panel(
        f"{task.organ}, support {source}", np.asarray(support.image[source]), {TRUTH: shown}
    )
    return [first] + [
        Panel(f"query {place}, M_{number}", image, {TRUTH: truth, PREDICTED: mask[0].cpu().numpy()})
        for number, mask in enumerate(rounds)
    ]
