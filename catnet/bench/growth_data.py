"""How cost grows with what there is: cases in the store, slices of a volume, runs of a sweep."""

import json
import os
import shutil
from functools import partial

import pandas as pd

from catnet.bench.fits import Curve
from catnet.bench.ranges import places, repeated
from catnet.bench.scene import Scene
from catnet.bench.stage import CASES
from catnet.bench.volumes import copy_case, library_masks, library_predictor
from catnet.data.card import Card
from catnet.data.episodes import open_source
from catnet.data.store import case_folder, open_cases
from catnet.evaluations import write_evaluation
from catnet.files import write_text
from catnet.question import load_question
from catnet.runs import PROVENANCE, create_run_folder, provenance, write_json
from catnet.sweep.store import Sweep

DRAWS = 20


def growing_store(scene: Scene) -> list[Curve]:
    """Opening a store of so many cases, and drawing an episode from it."""
    card = scene.card.model_copy(update={"name": "many"})
    settings = scene.run().run.data
    opening, drawing = [], []
    for count in places(scene, "cases"):
        add_cases(scene, card, count)
        opening += repeated(scene, [lambda: open_source(card, open_cases(card), settings, seed=0)])
        source = open_source(card, open_cases(card), settings, seed=0)

        def draw(source: object = source) -> None:
            for number in range(DRAWS):
                source.batch([source.generator(number)])

        drawing += repeated(scene, [draw], times=DRAWS)
    return [
        Curve(
            "opening",
            "opening the store and finding its episodes",
            "cases",
            places(scene, "cases"),
            tuple(opening),
            1.0,
            "the description of every case is read and checked once, its arrays are not",
        ),
        Curve(
            "drawing",
            "drawing and reading an episode",
            "cases",
            places(scene, "cases"),
            tuple(drawing),
            1.0,
            "an episode reads slices of one case; the others are only names to choose from",
        ),
    ]


def add_cases(scene: Scene, card: Card, count: int) -> None:
    """Fill the store of a card up to `count` cases, whose arrays are links to the scene's."""
    sources = [case.folder for case in scene.cases]
    for number in range(count):
        folder = case_folder(card, str(number))
        if folder.exists():
            continue
        shutil.copytree(sources[number % CASES], folder, copy_function=os.link)
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        write_text(folder / "meta.json", json.dumps(meta | {"case": str(number)}))


def growing_volume(scene: Scene) -> list[Curve]:
    """Evaluating a volume of so many slices, four organs, EP2."""
    query, support = scene.cases[:2]
    predictor = library_predictor(scene.run(), scene)
    works = [
        partial(
            library_masks,
            predictor,
            copy_case(query, scene.home / "slices" / str(depth), depth=depth, plane=64),
            support,
            organs=scene.card.organs,
            protocols=("EP2",),
        )
        for depth in places(scene, "slices")
    ]
    why = "slices pass in batches; each is encoded once and segmented once for every organ"
    curve = Curve(
        "slices",
        "evaluating a volume, four organs, EP2",
        "slices",
        places(scene, "slices"),
        repeated(scene, works),
        1.0,
        why,
    )
    return [curve]


def growing_sweep(scene: Scene) -> list[Curve]:
    """Planning and listing a sweep of so many finished runs."""
    cases = scene.cases
    known = provenance(scene.run(), cases)
    samples = []
    for count in places(scene, "runs"):
        for seed in range(count):
            finish(scene, seed, known)
        work = partial(list_sweep, scene, count)
        samples += repeated(scene, [work])
    why = "the folder of every run is looked at: its settings, its rows and the store of its cases"
    where = places(scene, "runs")
    return [Curve("runs", "listing a finished sweep", "runs", where, tuple(samples), 1.0, why)]


def finish(scene: Scene, seed: int, known: dict[str, object]) -> None:
    """The folder of a run that looks trained and evaluated."""
    folder = scene.run(f"seed={seed}")
    if folder.trained:
        return
    create_run_folder(folder.run)
    write_json(folder.path / PROVENANCE, known | {"identity": folder.identity})
    write_text(folder.model / "model.safetensors", "")
    row = {"run": folder.path.name, "setting": "1", "support": "1", "query": "2", "value": 0.5}
    write_evaluation(folder, pd.DataFrame([row]))


def list_sweep(scene: Scene, count: int) -> None:
    """What `catnet sweep FILE --list` does."""
    question = load_question(scene.home / "bench.yml", [f"vary.seed={list(range(count))}"])
    states = [job.state for job in Sweep(question).jobs]
    if states != ["done"] * count:
        raise RuntimeError(f"these runs were to be finished: {states}")
