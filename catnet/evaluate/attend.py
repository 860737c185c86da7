"""Where a trained network looks from one position of a query slice, round by round.

A row of an attention map says how much a position takes of every other one. Rows of the heads are
averaged and given in times the even share 1 / m of m positions: 1 means that all are seen alike.
"""

from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float
from numpy import ndarray
from scipy.ndimage import distance_transform_edt

from catnet.config import ModelSettings
from catnet.errors import UserError
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.scene import Scene, Slice, where_shown
from catnet.model.ops import to_tokens
from catnet.model.trace import Call, Trace, check_map, check_rounds, has_map, traced

Place = tuple[int, int]
Heat = Float[ndarray, "i j"]


@dataclass(frozen=True)
class Look:
    """What a position attends to in one round: times the even share, one value a token.

    `on_organ` is the part of all weight that lies on the organ (the true mask), in [0, 1]; nan
    where the position receives nothing, where weights are negative, or where there is no organ.
    """

    heat: Heat
    on_organ: float


@dataclass(frozen=True)
class Attention:
    """Looks of a position (row, column) of the query slice: at it, and at the support slice.

    `across` is empty where there is none; `silence` then says why.
    """

    scene: Scene
    place: Place
    predicted: Slice
    itself: tuple[Look, ...]
    across: tuple[Look, ...]
    silence: str


def check_looks(settings: ModelSettings) -> None:
    """Raise `UserError` where there is no round, or none whose self place has a map."""
    check_rounds(settings)
    if settings.rounds == 0:
        raise UserError("a run of model.rounds=0 has no attention to show; train one with rounds")
    check_map(settings.attention)


def attend(predictor: NetworkPredictor, scene: Scene, *, place: Place | None) -> Attention:
    """The looks from `place`, or from the middle of the organ's true, or else predicted, mask.

    Raises `UserError` for a place outside of the slice, where the organ is in neither mask, and
    for a mechanism without a map.
    """
    settings = predictor.model.settings
    check_looks(settings)
    support = predictor.support(scene.support_image[np.newaxis], scene.support_mask[np.newaxis])
    with traced(predictor.model) as trace:
        encoded = predictor.query(scene.image[np.newaxis])
        prediction = predictor.predict(support, encoded, 1)
    predicted = prediction.probability[0].float().cpu().numpy()
    place = choose_place(scene, predicted) if place is None else place
    check_place(place, scene.image.shape)
    silence = why_silent(settings, trace)
    with torch.inference_mode(), predictor.autocast():
        return Attention(
            scene,
            place,
            predicted,
            itself=looks_itself(trace, scene, place),
            across=() if silence else looks_across(trace, scene, place),
            silence=silence,
        )


def why_silent(settings: ModelSettings, trace: Trace) -> str:
    """Why there is no look at the support slice; empty where there are some."""
    if not has_map(settings.cross_attention):
        return f"{settings.cross_attention} weighs no single positions and has no map"
    if any(one.receives.any() for one in trace.rounds):
        return ""
    if settings.direction == "query_to_support":
        return "with model.direction=query_to_support the query receives nothing"
    if settings.mask_on == "queries":
        return (
            "the query receives nothing, since the masks that select its positions "
            "(model.mask_on=queries) are empty in every round"
        )
    return (
        "the query receives nothing, since the support mask that selects what may be attended to "
        "(model.mask_on=keys) is empty"
    )


def choose_place(scene: Scene, predicted: Slice) -> Place:
    """The middle of the true mask, or of the predicted one; raises `UserError` without either."""
    for mask in (scene.truth, predicted):
        if (mask > 0.5).any():
            return middle_of(mask)
    raise UserError(
        f"the {scene.organ} is not on slice {scene.number} of case {scene.query.name}, and not "
        f"predicted there; {where_shown(scene.query, [scene.organ])}, or a position with --at"
    )


def middle_of(mask: Slice) -> Place:
    """The pixel of a mask that lies deepest inside, which the centroid of a crescent does not."""
    depth = distance_transform_edt(np.pad(mask > 0.5, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return int(row), int(column)


def check_place(place: Place, shape: tuple[int, ...]) -> None:
    """Raise `UserError` for a place outside of the slice."""
    if not all(0 <= at < size for at, size in zip(place, shape, strict=True)):
        rows, columns = (size - 1 for size in shape)
        raise UserError(
            f"--at {place[0]},{place[1]} is outside of the slice; rows go from 0 to {rows}, "
            f"columns from 0 to {columns}"
        )


def looks_itself(trace: Trace, scene: Scene, place: Place) -> tuple[Look, ...]:
    """What `place` attends to on its own slice."""
    return tuple(look(one.itself, scene.truth, place) for one in trace.rounds)


def looks_across(trace: Trace, scene: Scene, place: Place) -> tuple[Look, ...]:
    """What `place` attends to on the support slice; zero where a mask keeps it away."""
    looks = [look(one.across, scene.support_mask, place) for one in trace.rounds]
    size = scene.image.shape
    return tuple(
        seen
        if one.receives[0][token_of(place, size=size, tokens=one.receives.shape[1:])]
        else Look(np.zeros_like(seen.heat), np.nan)
        for seen, one in zip(looks, trace.rounds, strict=True)
    )


def look(call: Call, mask: Slice, place: Place) -> Look:
    """One row of an attention map, the heads averaged."""
    height, width = tokens = call.given[0].shape[-2:]
    weights = reduce(call.attention_map(), "1 heads n m -> n m", "mean")
    rows = rearrange(weights, "(h w) (i j) -> h w i j", h=height, i=height)
    row = rows[token_of(place, size=mask.shape, tokens=tokens)].float().cpu()
    share = to_tokens(torch.from_numpy(mask)[None], like=row)[0]
    usable = share.any() and row.min() >= 0
    on_organ = ((row * share).sum() / row.sum()).item() if usable else np.nan
    return Look((row * height * width).numpy(), on_organ)


def token_of(place: Place, *, size: tuple[int, ...], tokens: tuple[int, ...]) -> Place:
    """The token that a pixel lies in."""
    row, column = (at * count // full for at, count, full in zip(place, tokens, size, strict=True))
    return row, column
