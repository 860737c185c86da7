"""Where a query looks unlike its supports, in sentences: what a network was never shown."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from catnet.arrays import Volume
from catnet.data.card import Card
from catnet.predict.scans import PLAIN_NAME, Prepared

FINER = 2.0  # times as fine or coarse along an axis
WIDER = 1.6  # times as large along an axis
OVERLAP = 0.6  # of two intensity histograms
DARK = 0.1  # of the range of intensities
CUT = 0.02  # share of the query's tissue that the prepared field of view leaves out
AXES = ("left-right", "front-back", "head-feet")
BINS = np.linspace(-2.0, 4.0, 49)  # in standard deviations


def differences(query: Prepared, supports: list[Prepared], *, card: Card) -> list[str]:
    """A sentence for every way in which the query is unlike a support, or unlike the card."""
    found = []
    for support in supports:
        found += look_differences(query, support)
    if query.look.modality != card.modality and card.name != PLAIN_NAME:
        found.append(
            f"its intensities look like {query.look.modality}, and the model's card "
            f"{card.name} is for {card.modality}"
        )
    return [*dict.fromkeys(found), *cut_off(query)]


def look_differences(query: Prepared, support: Prepared) -> list[str]:
    """How two scans differ in content, modality, spacing, field of view and intensity."""
    name, one, other = support.path.name, query.look, support.look
    if one.content == other.content:
        return [f"it has the same voxels as the support {name}: the answer was given away"]
    if query.label_like and not support.label_like:
        return [
            "it holds few whole numbers from 0, as a label does and the support "
            f"{name} does not: give the image, not its label; what was found means nothing"
        ]
    found = []
    if one.modality != other.modality:
        found.append(
            f"its intensities look like {one.modality}, those of the support {name} like "
            f"{other.modality}"
        )
    for axis, mine, its in zip(AXES, one.spacing, other.spacing, strict=True):
        if max(mine / its, its / mine) > FINER:
            found.append(
                f"its voxels are {mine:.3g} mm {axis}, those of the support {name} {its:.3g} mm"
            )
    for axis, mine, its in zip(AXES, one.extent, other.extent, strict=True):
        if max(mine / its, its / mine) > WIDER:
            found.append(
                f"its field of view is {mine:.0f} mm {axis}, that of the support {name} "
                f"{its:.0f} mm"
            )
    shared = float(np.minimum(histogram(query.image), histogram(support.image)).sum())
    if shared < OVERLAP:
        found.append(
            f"its intensities, prepared, share {shared:.0%} of their histogram with the support "
            f"{name}"
        )
    return found


def histogram(image: Volume) -> Float[ndarray, " n"]:
    """Shares of the voxels by intensity, without the darkest tenth of the range: air, padding."""
    some = image[:, ::2, ::2]
    low, high = some.min(), some.max()
    tissue = some[some > low + DARK * (high - low)]
    counts, _ = np.histogram(np.clip(tissue, BINS[0], BINS[-1]), BINS)
    return counts / max(1, counts.sum())


def cut_off(query: Prepared) -> list[str]:
    """A sentence where much of the scan's plane lies outside of the prepared field of view."""
    width, height, _ = np.multiply(query.grid.spacing, query.grid.shape)
    whole = query.look.extent
    if whole[0] <= width * 1.02 and whole[1] <= height * 1.02:
        return []
    rim = np.concatenate([query.image[:, [0, -1]].ravel(), query.image[:, :, [0, -1]].ravel()])
    tissue = float(np.mean(rim > query.image.min() + 0.5))
    if tissue < CUT:
        return []
    return [
        f"the model sees {width:.0f} x {height:.0f} mm of its {whole[0]:.0f} x {whole[1]:.0f} mm, "
        "and the patient reaches further; nothing is found there"
    ]
