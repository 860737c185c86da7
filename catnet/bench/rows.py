"""The rows of the table by name: what is measured on both sides, in pairs.

A row is a function of a scene that gives one or several `Row`s, and a line in `ROWS`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from catnet.bench.memory import (
    DEEP,
    EVALUATION,
    FIXED,
    LIBRARY,
    MOST,
    PLAIN,
    TRAINING,
    deepen,
    peak_memory,
)
from catnet.bench.pairs import Row, in_pairs, paired_row, part_rows
from catnet.bench.plain_volumes import plain_prepared, plain_supervoxels
from catnet.bench.scene import Scene
from catnet.bench.sides import (
    IN_A_ROW,
    LibrarySide,
    PlainSide,
    page_faults,
    plain_faults,
    timed_drawing,
    timed_episode,
    timed_plain,
)
from catnet.bench.volumes import as_trained, library_masks, timed_volume
from catnet.data.phantom import draw_phantom
from catnet.data.prepare import prepare_case
from catnet.data.supervoxels import purity, supervoxels
from catnet.model.measure import seconds

FROZEN = "the encoder's batch norm by kept statistics; the plain side's by those of the batch"
PRIOR = "the stage behind the prior is not trained, as in PFENet; the plain side trains it"
OTHER = "another network than the plain side's, which is the default one: what the setting saves"


def sampling(scene: Scene) -> list[Row]:
    """An episode drawn, read and augmented, alone and four at a time."""
    plain = PlainSide.of(scene)
    rows = []
    for batch in (1, 4):
        library = LibrarySide.of(scene, f"train.batch={batch}", loaders=False)
        rows.append(
            paired_row(
                f"sampling and augmentation, an episode, batch {batch}",
                partial(timed_drawing, plain),
                partial(timed_drawing, library),
                pairs=4 * scene.size.repeats,
                note=f"{IN_A_ROW} steps in a row on either side, as a loader process draws them",
            )
        )
    return rows


def training(scene: Scene) -> list[Row]:
    """Every part of a training step, batch 1, float32."""
    library = LibrarySide.of(scene)
    found = in_pairs(
        partial(scene.apart, timed_plain), partial(timed_episode, library), **some(scene, most=4)
    )
    *parts, whole = part_rows(list(found), name="training, float32, batch 1")
    faults = scene.apart(plain_faults, 0), page_faults(library, 0)
    note = "page faults an episode: plain {:,}, library {:,}".format(*faults)
    return [*parts, replace(whole, note=note)]


def training_with(name: str, *settings: str, note: str = "") -> Callable[[Scene], list[Row]]:
    """A row of whole training episodes of the library with other settings; plain stays as it is."""

    def measure(scene: Scene) -> list[Row]:
        library = LibrarySide.of(scene, *settings)
        row = paired_row(
            f"training, {name}: whole episode",
            lambda step: scene.apart(timed_plain, step)["whole episode"],
            lambda step: timed_episode(library, step)["whole episode"],
            **some(scene, most=4),
            note=note,
        )
        return [row]

    return measure


def evaluation(scene: Scene) -> list[Row]:
    """A volume segmented for all organs, under one protocol, and under both as `evaluate` does."""
    query, support = scene.cases[:2]
    organs = scene.card.organs
    predictor, share = as_trained(scene)
    note = f"masks that keep {100 * share:.0f} % of the positions, about as after training"

    def library(protocols: tuple[str, ...]) -> None:
        library_masks(predictor, query, support, organs=organs, protocols=protocols)

    scene.apart(timed_volume, ("EP2",), 1)  # to warm up, the long way once is enough
    library(("EP2",))
    return [
        paired_row(
            f"evaluation, {query.depth} slices, {len(organs)} organs, {' and '.join(protocols)}",
            lambda _, these=protocols: scene.apart(timed_volume, these),
            lambda _, these=protocols: seconds(lambda: library(these), scene.device),
            **(some(scene, most=2) | {"warm": 0}),
            note=note,
        )
        for protocols in (("EP2",), ("EP1", "EP2"))
    ]


def cutting(scene: Scene) -> list[Row]:
    """Supervoxels of one volume; the note says how pure those of either side are in several.

    One volume alone says nothing: the order of edges that weigh the same, which is arbitrary, moves
    its purity by several points.
    """
    volume, _ = cut_volume(scene, 1)
    sides = {"plain": plain_supervoxels, "library": supervoxels}
    work = {
        side: lambda _, cut=cut: seconds(
            lambda: cut(volume, min_size=scene.size.min_size), scene.device
        )
        for side, cut in sides.items()
    }
    row = paired_row(
        "supervoxels, " + " x ".join(map(str, volume.shape)),
        work["plain"],
        work["library"],
        pairs=scene.size.repeats,
    )
    pure = {side: mean_purity(scene, cut) for side, cut in sides.items()}
    values = ", ".join(f"{side} {100 * value:.1f} %" for side, value in pure.items())
    note = f"mean purity of {scene.size.cuts} volumes: {values}"
    return [Row(row.name, row.unit, row.plain, row.fast, note)]


def mean_purity(scene: Scene, cut: Callable[..., np.ndarray]) -> float:
    """How much of the organs the best supervoxels of the scene's volumes are."""
    found = []
    for case in range(1, scene.size.cuts + 1):
        volume, label = cut_volume(scene, case)
        labels = cut(volume, min_size=scene.size.min_size)
        found.append(np.mean(list(purity(labels, label, scene.card.organs).values())))
    return float(np.mean(found))


def cut_volume(scene: Scene, case: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and label of a phantom, as prepared cases lie."""
    plane = scene.size.plane
    phantom = draw_phantom("MR", seed=1, case=case, size=(plane, plane, scene.size.cut))
    image, label = (np.ascontiguousarray(array.T) for array in (phantom.image, phantom.label))
    return image, label


def preparing(scene: Scene) -> list[Row]:
    """A case read, resampled, clipped and z-scored; nothing is written."""
    files = [scene.raw / f"{kind}_1.nii.gz" for kind in ("image", "label")]
    card, raw = scene.card, scene.size.raw
    row = paired_row(
        f"prepare a case, {raw} x {raw} x {scene.size.depth}",
        lambda _: seconds(lambda: plain_prepared(card, *files), scene.device),
        lambda _: seconds(lambda: prepare_case(card, *files), scene.device),
        pairs=scene.size.repeats,
        note="plain: cubic interpolation; library: linear, and what it checks of the files",
    )
    return [row]


def memory(scene: Scene) -> list[Row]:
    """Peak memory of processes that do one thing each."""
    deepen(scene)
    depth, plane = scene.size.deep
    cut = f"plain: ended after {MOST} slices an organ, of which it keeps nothing"
    works = {
        TRAINING: ("training, batch 1", ""),
        FIXED: ("training, batch 1, fixed prior", PRIOR),
        EVALUATION: (f"evaluation, {scene.size.depth} slices", cut),
        DEEP: (f"evaluation, {depth} slices of {plane} x {plane}, one organ", cut),
    }
    return [
        paired_row(
            f"peak memory: {name}",
            lambda _, work=work: peak_memory(PLAIN, work, scene),
            lambda _, work=work: peak_memory(LIBRARY, work, scene),
            **{"pairs": 1, "warm": 0, "unit": "MiB", "note": note},
        )
        for work, (name, note) in works.items()
    ]


def some(scene: Scene, *, most: int) -> dict[str, int]:
    """How many pairs of a long measurement, and two to warm up.

    The plain side's second update takes twenty times as long as all that follow.
    """
    return {"pairs": min(most, scene.size.repeats), "warm": 2}


ROWS: dict[str, Callable[[Scene], list[Row]]] = {
    "sampling": sampling,
    "training": training,
    "batch": training_with("float32, batch 4", "train.batch=4"),
    "bfloat16": training_with("bfloat16, batch 1", "train.precision=bfloat16"),
    "stride": training_with(
        "float32, batch 1, output stride 16", "model.output_stride=16", note=OTHER
    ),
    "frozen": training_with(
        "float32, batch 1, frozen batch norm", "train.batch_norm=frozen", note=FROZEN
    ),
    "prior": training_with("float32, batch 1, fixed prior", "model.prior=fixed", note=PRIOR),
    "evaluation": evaluation,
    "supervoxels": cutting,
    "prepare": preparing,
    "memory": memory,
}
