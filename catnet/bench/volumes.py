"""Volumes that are evaluated: how the library does it, and cases of any depth made of another."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from catnet.bench.plain_evaluation import plain_volume
from catnet.bench.scene import Scene
from catnet.bench.thresholds import keep_few
from catnet.config import EvaluateSettings
from catnet.data.store import Case, write_folder
from catnet.engine import set_up_cpu
from catnet.evaluate.cases import segment_case
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.run import DTYPE
from catnet.model.measure import seconds
from catnet.model.network import Network
from catnet.model.networks import initial_model
from catnet.runs import RunFolder


def evaluation_model(folder: RunFolder) -> Network:
    """The network that a run starts with."""
    return initial_model(folder.run.model, seed=folder.run.seed).eval()


def library_predictor(folder: RunFolder, scene: Scene) -> NetworkPredictor:
    """That network as the library evaluates it."""
    set_up_cpu(folder.run.machine)
    precision = DTYPE[folder.run.train.precision]
    return NetworkPredictor(evaluation_model(folder), device=scene.device, precision=precision)


def as_trained(scene: Scene) -> tuple[NetworkPredictor, float]:
    """That predictor once its masks keep as little as after training, and the share that is."""
    predictor = library_predictor(scene.run(), scene)
    return predictor, keep_few(predictor, *scene.cases[:2], organs=scene.card.organs)


def library_masks(
    predictor: NetworkPredictor,
    query: Case,
    support: Case,
    *,
    organs: Mapping[str, int],
    protocols: Sequence[str],
) -> dict[tuple[str, str], Bool[ndarray, "d h w"]]:
    """The mask of every protocol and organ, in one pass."""
    settings = EvaluateSettings(protocols=tuple(protocols))
    result = segment_case({"catnet": predictor}, query, [support], organs=organs, settings=settings)
    return {(task.protocol, task.organ): task.mask for task in result.tasks}


@lru_cache(maxsize=1)
def plain_model(scene: Scene) -> Network:
    """The network of `as_trained`, for a process that evaluates with it several times."""
    model = evaluation_model(scene.run())
    predictor = NetworkPredictor(model, device=scene.device, precision=torch.float32)
    keep_few(predictor, *scene.cases[:2], organs=scene.card.organs)
    return model


def timed_volume(scene: Scene, protocols: Sequence[str], most: int | None = None) -> float:
    """Seconds of the plain side for a case of the scene, or for `most` slices of every organ."""
    query, support = scene.cases[:2]
    model = plain_model(scene)

    def segment() -> None:
        for protocol in protocols:
            plain_volume(
                model,
                query.folder,
                support.folder,
                organs=scene.card.organs,
                protocol=protocol,
                most=most,
            )

    return seconds(segment, scene.device)


def copy_case(case: Case, folder: Path, *, depth: int, plane: int) -> Case:
    """A case of `depth` slices, those of `case` over and over, of every n-th pixel."""
    place = np.arange(depth) % case.depth
    step = case.meta.shape[1] // plane
    arrays = {name: case.array(name)[place, ::step, ::step] for name in ("image", "label")}
    pixels = {
        organ: tuple(np.array(counted)[place].tolist())
        for organ, counted in case.meta.pixels.items()
    }
    meta = case.meta.model_copy(update={"shape": arrays["image"].shape, "pixels": pixels})
    write_folder(folder, arrays, meta)
    return Case(folder)
