"""Evaluate a run: its fold's queries, each with its supports, to rows, predictions and pictures."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from einops import rearrange

from catnet.config import EvaluateSettings, digest
from catnet.data.card import Card
from catnet.data.folds import split, support_sets
from catnet.data.store import Case, open_cases
from catnet.data.volume import resample, write_volume
from catnet.errors import UserError
from catnet.evaluate.browse import CaseRecorder, WatchedPredictor
from catnet.evaluate.cases import CaseResult, score, segment_case
from catnet.evaluate.pictures import draw_case
from catnet.evaluate.predictors import CopyPredictor, NetworkPredictor, Predictor
from catnet.files import write_text
from catnet.model.catnet import CATNet, initial_model
from catnet.runs import RunFolder, check_unchanged, write_json
from catnet.views import save_views

TRAINED = "catnet"
NAMES = ("run", "setting", "support", "query")  # may look like numbers, and are none
DTYPE = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Evaluation:
    """Where an evaluation lies, and its tidy rows."""

    path: Path
    rows: pd.DataFrame


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
    if settings.pictures:
        predictors[TRAINED] = WatchedPredictor(predictors[TRAINED])
    path = folder.path / "evaluations" / evaluation_name(settings)
    rows: list[dict[str, object]] = []
    for number, (supports, query) in enumerate(pairs):
        report(number, len(pairs), query.name)
        recorder = None
        if settings.pictures:
            recorder = CaseRecorder(
                watched=predictors[TRAINED],
                name=TRAINED,
                protocol=settings.protocols[0],
                query=query,
                supports=supports,
                organs=organs,
            )
        result = segment_case(
            predictors, query, supports, organs=organs, settings=settings, watch=recorder
        )
        shots = "+".join(case.name for case in supports)
        scores = list(score(result, query, organs=organs, tolerance=settings.tolerance))
        rows += [{"support": shots, **row} for row in scores]
        if settings.predictions:
            write_predictions(path / "predictions", result, query, shots)
        if recorder is not None and recorder.found:
            name = f"{query.name}_by_{shots}"
            write_picture(path / "pictures" / f"{name}.png", result, recorder, card=folder.card)
            views = recorder.case_views(scores, flip=folder.card.orientation[1] == "A")
            save_views(path / "browser" / f"{name}.npz", views)
    report(len(pairs), len(pairs), "")
    if not rows:
        raise UserError(f"{path}: no organ is shown by both a support and a query of this fold")
    table = tidy(rows, folder)
    text = table.to_csv(index=False)
    write_text(path / "rows.csv", text)
    write_json(path / "settings.json", record(settings, text))
    return Evaluation(path, table)


def finished_evaluation(folder: RunFolder) -> Evaluation | None:
    """What a former call left of this very evaluation; None where it has to be computed."""
    settings = folder.run.evaluate
    path = folder.path / "evaluations" / evaluation_name(settings)
    try:
        text = (path / "rows.csv").read_text(encoding="utf-8")
        known = json.loads((path / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if known != record(settings, text):
        return None
    check_unchanged(folder, open_cases(folder.card))
    rows = pd.read_csv(path / "rows.csv", dtype=dict.fromkeys(NAMES, str), keep_default_na=False)
    return Evaluation(path, rows)


def record(settings: EvaluateSettings, rows: str) -> dict[str, object]:
    """What tells whether rows are whole, and those of these settings."""
    return {"settings": settings.model_dump(mode="json"), "rows": digest(rows)}


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
    trained = CATNet.from_pretrained(folder.model)
    found: dict[str, Predictor] = {}
    if "copy" in folder.run.evaluate.baselines:
        found["copy"] = CopyPredictor()
    if "untrained" in folder.run.evaluate.baselines:
        untrained = initial_model(folder.run.model, seed=folder.run.seed)
        found["untrained"] = NetworkPredictor(untrained, device=device, precision=precision)
    found[TRAINED] = NetworkPredictor(trained, device=device, precision=precision)
    return found


def evaluation_name(settings: EvaluateSettings) -> str:
    """Folder of an evaluation: the support policy in words, then a hash of what decides it."""
    decisive = settings.model_dump(mode="json", exclude={"batch", "predictions", "pictures"})
    policy = settings.support + (str(settings.support_index) if settings.support == "index" else "")
    return f"{policy}-{settings.shots}shot-{digest(decisive)[:6]}"


def write_predictions(folder: Path, result: CaseResult, query: Case, shots: str) -> None:
    """The trained network's labels on the scanner's grid, a file for each protocol."""
    for (predictor, protocol), fused in result.fused.items():
        if predictor == TRAINED:
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
