"""Evaluate a run: its fold's queries, each with its supports, to rows, predictions and pictures."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from einops import rearrange

from catnet.data.card import Card
from catnet.data.folds import split, support_sets
from catnet.data.store import Case, open_cases
from catnet.data.volume import resample, write_volume
from catnet.errors import UserError
from catnet.evaluate.browse import CaseRecorder, WatchedPredictor
from catnet.evaluate.cases import CaseResult, score, segment_query
from catnet.evaluate.kept import KeptSlices
from catnet.evaluate.pictures import draw_case
from catnet.evaluate.predictors import CopyPredictor, NetworkPredictor, Predictor
from catnet.evaluations import Evaluation, evaluation_folder, write_evaluation
from catnet.model.networks import initial_model, load_network
from catnet.runs import RunFolder, check_unchanged
from catnet.views import save_views

DTYPE = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOGETHER = 4  # sets of supports: as many as `each` gives a query in a fold of five cases
Pair = tuple[tuple[Case, ...], Case]


def evaluate(
    folder: RunFolder, *, device: torch.device, report: Callable[[int, int, str], None]
) -> Evaluation:
    """Evaluate the trained network and the baselines of a run; writes `rows.csv` last.

    `report` is told (finished cases, all cases, the query at hand). Raises `UserError` where the
    run is not trained, or where no support and query of the fold share an organ.
    """
    pairs = list(support_query_pairs(folder))
    predictors = open_predictors(folder, device)
    trained = folder.run.model.name
    if folder.run.evaluate.pictures:
        predictors[trained] = WatchedPredictor(predictors[trained])
    kept = KeptSlices()
    rows: dict[int, list[dict[str, object]]] = {}
    for query, numbers in together(pairs):
        support_sets = [pairs[number][0] for number in numbers]
        found = evaluate_query(folder, predictors, query, support_sets, kept=kept)
        for number in numbers:
            report(len(rows), len(pairs), query.name)
            rows[number] = next(found)
    report(len(pairs), len(pairs), "")
    in_order = [row for number in range(len(pairs)) for row in rows[number]]
    if not in_order:
        raise UserError(
            f"{folder.path}: no organ is shown by both a support and a query of this fold"
        )
    return write_evaluation(folder, tidy(in_order, folder))


def together(pairs: Sequence[Pair]) -> Iterator[tuple[Case, list[int]]]:
    """Every query and the places of its pairs, at most so many that their masks fit in memory."""
    places: dict[Case, list[int]] = {}
    for number, (_, query) in enumerate(pairs):
        places.setdefault(query, []).append(number)
    for query, numbers in places.items():
        for start in range(0, len(numbers), TOGETHER):
            yield query, numbers[start : start + TOGETHER]


def evaluate_query(
    folder: RunFolder,
    predictors: Mapping[str, Predictor],
    query: Case,
    support_sets: Sequence[tuple[Case, ...]],
    *,
    kept: KeptSlices,
) -> Iterator[list[dict[str, object]]]:
    """The rows of a query with each set of supports; writes what is to be seen of them."""
    settings, trained = folder.run.evaluate, folder.run.model.name
    organs = folder.card.tested_organs(folder.run.data.group)
    recorders = [
        CaseRecorder(
            watched=predictors[trained],
            name=trained,
            protocol=settings.protocols[0],
            query=query,
            supports=supports,
            organs=organs,
        )
        if settings.pictures
        else None
        for supports in support_sets
    ]
    results = segment_query(
        predictors,
        query,
        support_sets,
        organs=organs,
        settings=settings,
        watches=recorders,
        fuse=[trained] if settings.predictions else [],
        kept=kept,
    )
    for supports, result, recorder in zip(support_sets, results, recorders, strict=True):
        yield finish_pair(folder, query, supports, result=result, recorder=recorder)


def finish_pair(
    folder: RunFolder,
    query: Case,
    supports: Sequence[Case],
    *,
    result: CaseResult,
    recorder: CaseRecorder | None,
) -> list[dict[str, object]]:
    """The rows of a query with its supports; writes what is to be seen of it."""
    settings, trained = folder.run.evaluate, folder.run.model.name
    organs = folder.card.tested_organs(folder.run.data.group)
    shots = "+".join(case.name for case in supports)
    rows = [
        {"support": shots, **row}
        for row in score(result, query, organs=organs, tolerance=settings.tolerance)
    ]
    path = evaluation_folder(folder)
    if settings.predictions:
        write_predictions(path / "predictions", result, query, shots, model=trained)
    if recorder is not None and recorder.found:
        name = f"{query.name}_by_{shots}"
        write_picture(path / "pictures" / f"{name}.png", result, recorder, card=folder.card)
        views = recorder.case_views(rows, flip=folder.card.orientation[1] == "A")
        save_views(path / "browser" / f"{name}.npz", views)
    return rows


def support_query_pairs(folder: RunFolder) -> Iterator[Pair]:
    """Every query of the run's fold with its supports."""
    settings = folder.run.evaluate
    cases = open_cases(folder.card)
    check_unchanged(folder, cases)
    tested = split(folder.card, cases, folder.run.data.fold).tested
    for case in tested:
        case.check_content("image", "label")
    for supports, queries in support_sets(
        tested, policy=settings.support, index=settings.support_index, shots=settings.shots
    ):
        for query in queries:
            yield supports, query


def open_predictors(folder: RunFolder, device: torch.device) -> dict[str, Predictor]:
    """The baselines asked for, then the trained network."""
    if not folder.trained:
        raise UserError(
            f"{folder.path}: training has not ended; run the `catnet train` command that made it "
            "again, it goes on from the last checkpoint"
        )
    precision = DTYPE[folder.run.train.precision]
    trained = load_network(folder.model)
    if trained.settings != folder.run.model:
        raise UserError(
            f"{folder.model}: its settings are not those of the run; bring the folder back as it "
            "was, or delete the run and train again"
        )
    found: dict[str, Predictor] = {}
    if "copy" in folder.run.evaluate.baselines:
        found["copy"] = CopyPredictor()
    if "untrained" in folder.run.evaluate.baselines:
        untrained = initial_model(folder.run.model, seed=folder.run.seed)
        found["untrained"] = NetworkPredictor(untrained, device=device, precision=precision)
    found[folder.run.model.name] = NetworkPredictor(trained, device=device, precision=precision)
    return found


def write_predictions(
    folder: Path, result: CaseResult, query: Case, shots: str, *, model: str
) -> None:
    """The labels of the network `model` on the scanner's grid, a file for each protocol."""
    for (predictor, protocol), fused in result.fused.items():
        if predictor == model:
            labels = resample(
                rearrange(fused.label, "d h w -> w h d"),
                query.meta.grid,
                query.meta.raw_grid,
                order=0,
            )
            path = folder / protocol / f"{query.name}_by_{shots}.nii.gz"
            write_volume(path, labels, query.meta.raw_grid.affine)


def write_picture(path: Path, result: CaseResult, recorder: CaseRecorder, *, card: Card) -> None:
    """The trained network's rounds as one PNG."""
    draw_case(
        path,
        [task for task in result.tasks if task.predictor == recorder.name],
        recorder.watched.predictor,
        query=recorder.query,
        supports=recorder.supports,
        card=card,
    )


def tidy(rows: list[dict[str, object]], folder: RunFolder) -> pd.DataFrame:
    """Rows with what they hold for: run, card, fold, seed, setting, support policy."""
    run = folder.run
    same = {
        "run": folder.path.name,
        "card": folder.card.name,
        "fold": run.data.fold,
        "seed": run.seed,
        "setting": run.data.setting,
        "policy": run.evaluate.support,
        "shots": run.evaluate.shots,
    }
    return pd.DataFrame([{**same, **row} for row in rows])
