"""Batches that mix organs, supports and protocols, against one slice at a time."""

import itertools

import numpy as np
import pytest
import torch
from trials import Exact

from catnet.config import EvaluateSettings
from catnet.data.folds import support_sets
from catnet.evaluate import run as module
from catnet.evaluate.cases import segment_case, segment_query
from catnet.evaluate.kept import KeptSlices
from catnet.evaluate.predictors import CopyPredictor, NetworkPredictor
from catnet.evaluate.protocol import plan
from catnet.evaluate.run import evaluate
from catnet.model.encoder import Encoded
from catnet.model.networks import NETWORKS, initial_model

CPU = torch.device("cpu")
ORGANS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
PROTOCOLS = ("EP1", "EP2")


class Single(NetworkPredictor):
    """In single precision, as users have it."""

    def __init__(self, model):
        super().__init__(model, device=CPU, precision=torch.float32)


def network(name, tiny):
    rounds = [] if name == "catnet" else ["model.rounds=4"]  # the tiny run's is CAT-Net's
    return initial_model(tiny(f"model.name={name}", *rounds).run.model, seed=3).eval()


def plainly(model, query, supports, *, protocol, organ):
    """Probabilities by number of the query slice: every slice encoded and segmented alone."""
    dtype = next(model.parameters()).dtype
    found = {}
    for chunk in plan(protocol, organ=organ, supports=supports, query=query):
        shots, masks = [], []
        for case, number in zip(supports, chunk.support, strict=True):
            shots.append(model.encode(torch.tensor(case.image[number], dtype=dtype)[None, None]))
            masks.append(torch.tensor(case.label[number] == ORGANS[organ], dtype=dtype))
        support = Encoded(
            torch.cat([shot.feature for shot in shots])[None],
            torch.cat([shot.deep for shot in shots])[None],
        )
        for number in chunk.query:
            encoded = model.encode(torch.tensor(query.image[number], dtype=dtype)[None, None])
            prediction = model.segment(support, torch.stack(masks)[None], encoded)
            found[number] = prediction.probability[0].numpy()
    return found


def seen(predictor, query, sets, **settings):
    """Results, and all probabilities: (set, protocol, organ) -> slice -> probability."""
    found = {}

    def watch_of(number):
        def watch(task, slices, rows):
            given = found.setdefault((number, task.protocol, task.organ), {})
            for one, row in zip(slices, rows, strict=True):
                assert one not in given
                given[one] = last[row]

        return watch

    last = []
    segment = predictor.segment

    def noting(*given):
        last[:] = segment(*given)
        return np.stack(last)

    predictor.segment = noting
    results = segment_query(
        {"network": predictor},
        query,
        sets,
        organs=ORGANS,
        settings=EvaluateSettings(**settings),
        watches=[watch_of(number) for number in range(len(sets))],
    )
    return results, found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("policy", "shots"), [("each", 1), ("each", 2), ("index", 2), ("extra", 1), ("extra", 3)]
)
def test_every_network_says_what_it_says_of_single_slices(name, policy, shots, tiny, cases):
    model = network(name, tiny)
    tested = cases[:4]
    query = tested[0]
    pairs = support_sets(tested, policy=policy, index=1, shots=shots)
    sets = [supports for supports, queries in pairs if query in queries]
    exact, (single, rough) = (
        seen(Exact(network(name, tiny)), query, sets, shots=shots, batch=5),
        seen(Single(model), query, sets, shots=shots, batch=5),
    )
    assert len(exact[0]) == len(sets) == (4 - shots if policy == "each" else 1)
    model = network(name, tiny).double()
    some = list(itertools.product(range(len(sets)), PROTOCOLS, ["liver", "spleen"]))
    with torch.inference_mode():
        for number, protocol, organ in some:
            expected = plainly(model, query, sets[number], protocol=protocol, organ=organ)
            (task,) = [
                t for t in exact[0][number].tasks if (t.protocol, t.organ) == (protocol, organ)
            ]
            given = exact[1][number, protocol, organ]
            assert sorted(given) == sorted(expected) == sorted(task.slices)
            for place, probability in expected.items():
                np.testing.assert_array_equal(task.mask[place], probability > 0.5)
                np.testing.assert_allclose(given[place], probability, atol=1e-6)
                np.testing.assert_allclose(
                    rough[number, protocol, organ][place], probability, atol=1e-3
                )
    assert [len(result.tasks) for result in single] == [8] * len(sets)


@pytest.mark.parametrize("shots", [1, 2])
def test_support_sets_together_are_as_each_alone(shots, tiny, cases):
    query, *others = cases[:4]
    sets = [others[start : start + shots] for start in range(4 - shots)]
    predictors = {"copy": CopyPredictor(), "catnet": Single(network("catnet", tiny))}
    settings = EvaluateSettings(shots=shots, batch=7)
    given = segment_query(
        predictors,
        query,
        sets,
        organs=ORGANS,
        settings=settings,
        watches=[None] * len(sets),
        fuse=["catnet"],
    )
    for supports, result in zip(sets, given, strict=True):
        alone = segment_case(predictors, query, supports, organs=ORGANS, settings=settings)
        assert [name_of(task) for task in result.tasks] == [name_of(task) for task in alone.tasks]
        for task, other in zip(result.tasks, alone.tasks, strict=True):
            np.testing.assert_array_equal(task.mask, other.mask)
        assert set(result.fused) == {("catnet", protocol) for protocol in PROTOCOLS}
        for key, fused in result.fused.items():
            np.testing.assert_array_equal(fused.label, alone.fused[key].label)
    masks = [task.mask for result in given for task in result.tasks]
    assert any(0 < mask.mean() < 1 for mask in masks)


def name_of(task):
    return task.predictor, task.protocol, task.organ


@pytest.fixture
def asked(monkeypatch):
    """Batches of slices that networks encode, and the sizes of those that they segment."""
    encoded, segmented = [], []
    encode, segment = NetworkPredictor.query, NetworkPredictor.segment

    def noting(self, images):
        encoded.append([image.tobytes() for image in images])
        return encode(self, images)

    def counting(self, support, query, count):
        segmented.append(count)
        return segment(self, support, query, count)

    monkeypatch.setattr(NetworkPredictor, "query", noting)
    monkeypatch.setattr(NetworkPredictor, "segment", counting)
    return encoded, segmented


def test_no_slice_is_encoded_twice_and_batches_are_full(tiny, cases, asked):
    query, *others = cases[:4]
    predictor = Single(network("catnet", tiny))
    settings = EvaluateSettings(batch=5)
    kept = KeptSlices()

    def ask(wanted, sets):
        for batches in asked:
            batches.clear()
        results = segment_query(
            {"catnet": predictor},
            wanted,
            sets,
            organs=ORGANS,
            settings=settings,
            watches=[None] * len(sets),
            kept=kept,
        )
        return results, *asked

    results, encoded, segmented = ask(query, [[case] for case in others])
    flat = [image for batch in encoded for image in batch]
    assert len(flat) == len(set(flat))
    assert max(map(len, encoded)) <= 5
    own = {image.tobytes() for image in query.image}
    assert own <= set(flat)
    rows = {
        (number, task.organ, chunk.support, place)
        for number, result in enumerate(results)
        for task in result.tasks
        for chunk in task.chunks
        for place in chunk.query
    }
    assert sum(segmented) == len(rows)
    assert len([count for count in segmented if count < 5]) <= -(-query.depth // 5)
    _, again, _ = ask(others[0], [[others[1]], [others[2]]])
    supports = {image for batch in encoded for image in batch} - own
    assert not supports & {image for batch in again for image in batch} - {
        image.tobytes() for image in others[0].image
    }


def test_slices_that_find_no_room_are_encoded_again(cases, tiny, asked):
    predictor = Single(network("catnet", tiny))
    places = [(cases[0], number) for number in range(6)]
    (one,) = KeptSlices().encode(predictor, places[:1], batch=4).values()
    kept = KeptSlices(room=3 * one.size)
    asked[0].clear()
    whole = kept.encode(predictor, places, batch=4)
    assert [len(batch) for batch in asked[0]] == [4, 2]
    assert len(kept.held) == 3
    asked[0].clear()
    part = kept.encode(predictor, places[2:], batch=4)
    assert asked[0] == [[cases[0].image[2].tobytes()]]
    for place, encoded in part.items():
        torch.testing.assert_close(encoded.feature, whole[place].feature)


def test_rows_and_files_come_as_if_pair_by_pair(trained, monkeypatch):
    folder = trained("evaluate.support=each", "evaluate.baselines=[copy]")
    together = evaluate(folder, device=CPU, report=lambda *what: None)
    files = {path.relative_to(together.path) for path in together.path.rglob("*_by_*")}
    text = (together.path / "rows.csv").read_text()
    monkeypatch.setattr(module, "TOGETHER", 1)
    alone = evaluate(folder, device=CPU, report=lambda *what: None)
    assert (alone.path / "rows.csv").read_text() == text
    assert {path.relative_to(alone.path) for path in alone.path.rglob("*_by_*")} == files
    pairs = alone.rows[["support", "query"]].drop_duplicates().values.tolist()
    assert [tuple(pair) for pair in pairs] == [
        (one, other) for one in "123" for other in rotated("123", one)
    ]


def rotated(names, first):
    place = names.index(first)
    return names[place + 1 :] + names[:place]
