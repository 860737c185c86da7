"""Evaluate a run: its fold's queries, each with its supports, to rows, predictions and pictures."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import torch
from einops import rearrange

from catnet.data.folds import split, support_sets
from catnet.data.store import Case, open_cases
from catnet.data.volume import resample, write_volume
from catnet.errors import UserError
from catnet.evaluate.cases import CaseResult, score, segment_case
from catnet.evaluate.pictures import draw_case
from catnet.evaluate.predictors import CopyPredictor, NetworkPredictor, Predictor
from catnet.evaluations import Evaluation, evaluation_folder, write_evaluation
from catnet.model.networks import initial_model, load_network
from catnet.runs import RunFolder, check_unchanged

DTYPE = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def evaluate(
    folder: RunFolder, *, device: torch.device, report: Callable[[int, int, str], None]
) -> Evaluation:
    """Evaluate the trained network and the baselines of a run; writes `rows.csv` last.

    `report` is told (finished cases, all cases, the query at hand). Raises `UserError` where the
    run is not trained, or where no support and query of the fold share an organ.
    """
    settings = folder.run.evaluate
    organs = folder.card.tested_organs(folder.run.data.group)
    pairs = list(support_query_pairs(folder))
    predictors = open_predictors(folder, device)
    trained = folder.run.model.name
    path = evaluation_folder(folder)
    rows: list[dict[str, object]] = []
    for number, (supports, query) in enumerate(pairs):
        report(number, len(pairs), query.name)
        result = segment_case(predictors, query, supports, organs=organs, settings=settings)
        shots = "+".join(case.name for case in supports)
        scores = score(result, query, organs=organs, tolerance=settings.tolerance)
        rows += [{"support": shots, **row} for row in scores]
        if settings.predictions:
            write_predictions(path / "predictions", result, query, shots, model=trained)
        if settings.pictures:
            picture = path / "pictures" / f"{query.name}_by_{shots}.png"
            draw_case(
                picture,
                [task for task in result.tasks if task.predictor == trained],
                predictors[trained],
                query=query,
                supports=supports,
                card=folder.card,
            )
    report(len(pairs), len(pairs), "")
    if not rows:
        raise UserError(f"{path}: no organ is shown by both a support and a query of this fold")
    return write_evaluation(folder, tidy(rows, folder))


def support_query_pairs(folder: RunFolder) -> Iterator[tuple[tuple[Case, ...], Case]]:
    """Every query of the run's fold with its supports."""
    settings = folder.run.evaluate
    cases = open_cases(folder.card)
    check_unchanged(folder, cases)
    tested = split(folder.card, cases, folder.run.data.fold).tested
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
