"""How alike the query feature of every round is to the last one's, over the queries of a fold.

F_0 is what MIFE gives, F_i what round i leaves. For every query slice that EP1 counts, and every
organ, CKA compares the positions of F_i with those of F_N: where F_i and F_N are alike, the rounds
after i turn and scale the feature at most.
"""

import json
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from catnet.config import Run
from catnet.data.store import Case
from catnet.errors import UserError
from catnet.evaluate.batches import pieces
from catnet.evaluate.cka import linear_cka, to_positions
from catnet.evaluate.kept import KeptSlices
from catnet.evaluate.predictors import NetworkPredictor, Support
from catnet.evaluate.run import open_predictors, support_query_pairs
from catnet.evaluate.tasks import bind, make_tasks, places_of, plan_case
from catnet.model.encoder import Encoded
from catnet.model.trace import check_rounds, traced
from catnet.runs import RunFolder

TOLD = {  # elsewhere in a curve's name, or of no effect on it
    *("data.fold", "model.attention", "model.cross_attention", "model.rounds"),
    *("evaluate.protocols", "evaluate.baselines", "evaluate.tolerance", "evaluate.batch"),
    *("evaluate.predictions", "evaluate.pictures"),
}


def measure_similarity(
    folder: RunFolder, *, device: torch.device, report: Callable[[int, int, str], None]
) -> pd.DataFrame:
    """A row for every slice, organ and round: run, mechanism (self / cross), ..., round, cka.

    `report` is told (finished cases, all cases, the query at hand). Raises `UserError` where the
    run is not trained or has no rounds, or where no support and query share an organ.
    """
    run = folder.run
    check_rounds(run.model)
    if run.model.rounds == 0:
        raise UserError(f"{folder.path}: model.rounds=0, so there are no rounds to compare")
    predictor = open_predictors(folder, device)[run.model.name]
    pairs = list(support_query_pairs(folder))
    same = {
        "run": folder.path.name,
        "mechanism": f"{run.model.attention} / {run.model.cross_attention}",
        "card": folder.card.name,
        "fold": run.data.fold,
        "seed": run.seed,
    }
    rows = []
    for number, (supports, query) in enumerate(pairs):
        report(number, len(pairs), query.name)
        shots = "+".join(case.name for case in supports)
        for row in compare_case(predictor, query, supports, folder=folder):
            rows.append({**same, "support": shots, "query": query.name, **row})
    report(len(pairs), len(pairs), "")
    if not rows:
        raise UserError(f"{folder.path}: no organ is shown by both a support and a query")
    return pd.DataFrame(rows)


def group_names(runs: Sequence[Run]) -> list[str]:
    """What every run is called: its mechanisms (self / cross), and what else differs among them.

    Runs that differ in fold and seed alone have the same name: they repeat one another. The number
    of rounds is left to the curves, which show it.
    """
    settings = [decisive(run) for run in runs]
    keys = [key for key in settings[0] if len({str(one[key]) for one in settings}) > 1]
    names = []
    for run, one in zip(runs, settings, strict=True):
        own = f"{run.model.attention} / {run.model.cross_attention}"
        names.append(
            ", ".join([own, *(f"{key.removeprefix('model.')}={one[key]}" for key in keys)])
        )
    return names


def decisive(run: Run) -> dict[str, str]:
    """Every setting that tells runs apart, by its whole name, in the words of a run file."""
    groups = run.model_dump(mode="json", include={"data", "augment", "model", "train", "evaluate"})
    return {
        f"{group}.{key}": json.dumps(value).replace('"', "")
        for group, settings in groups.items()
        for key, value in settings.items()
        if f"{group}.{key}" not in TOLD
    }


def compare_case(
    predictor: NetworkPredictor, query: Case, supports: Sequence[Case], *, folder: RunFolder
) -> Iterator[dict[str, object]]:
    """Organ, slice, round and CKA; the slices pass in batches, each encoded once."""
    organs = folder.card.tested_organs(folder.run.data.group)
    batch = folder.run.evaluate.batch
    plan = plan_case(query, supports, organs=organs, protocols=["EP1"])
    kept = KeptSlices().encode(predictor, places_of(supports, plan), batch=batch)
    bound = bind(predictor, supports, plan, organs=organs, encoded=kept)
    tasks = make_tasks("catnet", plan, bound, shape=query.image.shape)
    needed = sorted({number for task in tasks for number in task.slices})
    for start in range(0, len(needed), batch):
        window = needed[start : start + batch]
        encoded = predictor.query(np.stack([query.image[number] for number in window]))
        for task, support, slices in pieces(tasks, set(window)):
            some = encoded[torch.tensor([window.index(number) for number in slices])]
            values = compare_rounds(predictor, support, some, len(slices)).tolist()
            for number, of_slice in zip(slices, values, strict=True):
                for place, value in enumerate(of_slice):
                    yield {"organ": task.organ, "slice": number, "round": place, "cka": value}


def compare_rounds(
    predictor: NetworkPredictor, support: Support, query: Encoded, count: int
) -> Float[Tensor, "{count} r"]:
    """CKA of F_0 .. F_N with F_N for `count` encoded slices; the last column is one."""
    with traced(predictor.model) as trace:
        predictor.predict(support, query, count)
    features = [to_positions(feature) for feature in trace.features]
    return torch.stack([linear_cka(feature, features[-1]) for feature in features], dim=1)
