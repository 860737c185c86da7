"""The page of a run: one case, segmented afresh so that the mask of every round can be shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from einops import rearrange

from catnet.data.folds import split
from catnet.data.store import Case, open_cases
from catnet.data.volume import ScanFile
from catnet.errors import UserError
from catnet.evaluate.browse import WatchedPredictor
from catnet.evaluate.cases import Fused, segment_case
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.protocol import organ_slices
from catnet.evaluate.run import open_predictors, support_query_pairs
from catnet.evaluate.scene import choose_support, find_case
from catnet.evaluate.tasks import Task
from catnet.runs import RunFolder, check_unchanged
from catnet.view.page import Page, Pane
from catnet.view.volumes import Layer, pack_contour, pack_image, pack_labels


@dataclass
class RoundKeeper:
    """Fuses the organs' masks of every round, while a case is segmented."""

    watched: WatchedPredictor
    organs: Mapping[str, int]
    shape: tuple[int, int, int]
    rounds: list[Fused] = field(default_factory=list)
    sources: dict[str, set[int]] = field(default_factory=dict)

    def __call__(self, task: Task, slices: Sequence[int], rows: Sequence[int]) -> None:
        """Look at what was just predicted for some slices of a task, in those rows."""
        masks = self.watched.last[list(rows)].rounds
        while len(self.rounds) < len(masks):
            self.rounds.append(Fused.empty(self.shape))
        for fused, mask in zip(self.rounds, masks, strict=True):
            probability = mask.float().cpu().numpy()
            fused.add(self.organs[task.organ], probability, list(slices))
        used = (chunk.support[0] for chunk in task.chunks)
        self.sources.setdefault(task.organ, set()).update(used)


def view_run(
    folder: RunFolder,
    *,
    case: str | None,
    support: str | None,
    organ: str | None,
    device: torch.device,
) -> Page:
    """The page of a case by the run's first protocol; without names, the fold's first query.

    Raises `UserError` for names that are not there, and for a run that is not trained.
    """
    organs = choose_organs(folder, organ)
    query, supports = choose_cases(folder, case=case, support=support, organs=organs)
    trained = folder.run.model.name
    predictor = open_predictors(folder, device)[trained]
    assert isinstance(predictor, NetworkPredictor)
    watched = WatchedPredictor(predictor)
    keeper = RoundKeeper(watched, organs, query.image.shape)
    one = {"protocols": folder.run.evaluate.protocols[:1]}
    settings = folder.run.evaluate.model_copy(update=one)
    segment_case(
        {trained: watched}, query, supports, organs=organs, settings=settings, watch=keeper
    )
    if not keeper.rounds:
        raise UserError(
            f"case {query.name} and its support {supports[0].name} share none of the organs "
            f"{', '.join(organs)}; choose other cases"
        )
    last = len(keeper.rounds) - 1
    layers = [
        pack_labels(name_round(number, last), on_grid(query, fused.label), numbers=places(organs))
        for number, fused in enumerate(keeper.rounds)
    ]
    first = min(keeper.sources, key=list(organs).index)
    return Page(
        title=f"{folder.path.name}: case {query.name} by support {join(supports)}",
        notes=tuple(describe(folder, query, keeper.sources)),
        organs=tuple(organs),
        panes=(
            case_pane(f"query {query.name}", query, organs, layers=layers, middle=first),
            case_pane(f"support {supports[0].name}", supports[0], organs, middle=first),
        ),
    )


def choose_organs(folder: RunFolder, organ: str | None) -> dict[str, int]:
    """The organ of this name, or all that the run is tested on."""
    if organ is None:
        return dict(folder.card.tested_organs(folder.run.data.group))
    if organ not in folder.card.organs:
        known = ", ".join(folder.card.organs)
        raise UserError(f"--organ {organ!r} is not in card {folder.card.name}; it has {known}")
    return {organ: folder.card.organs[organ]}


def choose_cases(
    folder: RunFolder, *, case: str | None, support: str | None, organs: Mapping[str, int]
) -> tuple[Case, tuple[Case, ...]]:
    """The query and its supports: as the evaluation pairs them, or those that were named."""
    cases = open_cases(folder.card)
    check_unchanged(folder, cases)
    pairs = list(support_query_pairs(folder))
    query = find_case(cases, case, option="--case") if case is not None else pairs[0][1]
    paired = [supports for supports, one in pairs if one.name == query.name]
    if support is None and paired:
        return query, paired[0]
    shown = [organ for organ in organs if organ_slices(query, organ)] or list(organs)
    return query, (choose_support(folder, cases, query=query, organ=shown[0], name=support),)


def name_round(number: int, last: int) -> str:
    """What a round's mask is called on the page."""
    if last == 0:
        return "mask"
    return f"M_{number} (final)" if number == last else f"M_{number}"


def join(supports: Sequence[Case]) -> str:
    """The names of several shots."""
    return "+".join(case.name for case in supports)


def places(organs: Mapping[str, int]) -> dict[int, int]:
    """The page's number of each label number."""
    return {number: place for place, number in enumerate(organs.values(), start=1)}


def on_grid(case: Case, slices: np.ndarray) -> ScanFile:
    """An array of a prepared case, slices first, as a volume in its place in the world."""
    return ScanFile(rearrange(np.asarray(slices), "d h w -> w h d"), case.meta.grid)


def case_pane(
    title: str, case: Case, organs: Mapping[str, int], *, middle: str, layers: Sequence[Layer] = ()
) -> Pane:
    """A prepared case with its true labels as the last layer, the final mask shown first."""
    truth = on_grid(case, case.label)
    known = pack_labels("truth", truth, numbers=places(organs))
    return Pane(
        title=title,
        image=pack_image(on_grid(case, case.image)),
        layers=(*layers, known),
        first=max(len(layers) - 1, 0),
        contour=pack_contour("truth", truth, numbers=places(organs)) if layers else None,
        middle=middle_of(case, organs[middle]),
    )


def middle_of(case: Case, number: int) -> tuple[float, float, float] | None:
    """World place of a voxel of the organ, near its middle; None where it is not shown."""
    found = np.argwhere(case.label == number)
    if not len(found):
        return None
    inside = found[np.linalg.norm(found - found.mean(axis=0), axis=1).argmin()]
    x, y, z = (np.array(case.meta.affine) @ [*inside[::-1], 1.0])[:3].tolist()
    return x, y, z


def describe(
    folder: RunFolder, query: Case, sources: Mapping[str, set[int]]
) -> tuple[str, str, str]:
    """How the masks came about, in words."""
    fold = split(folder.card, open_cases(folder.card), folder.run.data.fold)
    trained = query.name in {case.name for case in fold.training}
    role = "among the training cases of this run" if trained else "not among its training cases"
    used = "; ".join(f"{organ} {join_numbers(numbers)}" for organ, numbers in sources.items())
    data = f"{folder.card.title} ({folder.card.license}). Source: {folder.card.source}."
    protocol = folder.run.evaluate.protocols[0]
    told = ", which is told the slices that show an organ" if protocol == "EP1" else ""
    return (
        f"Network {folder.run.model.name}, protocol {protocol}{told}; the query is {role}.",
        f"Support slices, from 0: {used}. M_0 is the first guess, M_i the mask after round i.",
        f"On the prepared grid, z-scored. {data}",
    )


def join_numbers(numbers: set[int]) -> str:
    """Numbers in ascending order."""
    return ", ".join(map(str, sorted(numbers)))
