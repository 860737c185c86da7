import numpy as np
import pytest
import torch
from oracles import Everything
from trials import Exact

from catnet.config import EvaluateSettings
from catnet.evaluate.cases import Fused, score, segment_case
from catnet.evaluate.metrics import measure
from catnet.evaluate.predictors import CopyPredictor, NetworkPredictor
from catnet.model.catnet import CATNet

CPU = torch.device("cpu")
ORGANS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
METRICS = {"dice", "iou", "hd95", "surface_dice"}


def settings(**changes):
    return EvaluateSettings(**changes)


@pytest.fixture
def network():
    """A predictor whose masks are neither empty nor full."""

    def make(folder):
        model = CATNet.from_pretrained(folder.model)
        return NetworkPredictor(model, device=CPU, precision=torch.float32)

    return make


@pytest.mark.parametrize("protocol", ["EP1", "EP2"])
def test_ep1_counts_the_organs_slices_and_ep2_all(protocol, cases):
    support, query = cases[:2]
    result = segment_case(
        {"all": Everything()},
        query,
        [support],
        organs=ORGANS,
        settings=settings(protocols=[protocol], batch=5),
    )
    rows = list(score(result, query, organs=ORGANS, tolerance=2.0))
    assert len(rows) == len(ORGANS) * len(METRICS)
    for row in rows:
        if row["metric"] == "dice":
            truth = query.label == ORGANS[row["organ"]]
            counted = truth.any(axis=(1, 2)).sum() if protocol == "EP1" else query.depth
            seen = counted * truth[0].size
            assert row["value"] == pytest.approx(200 * truth.sum() / (truth.sum() + seen))


@pytest.mark.parametrize("protocol", ["EP1", "EP2"])
def test_a_missed_organ_costs_the_diagonal_of_what_is_counted(protocol, cases):
    support, query = cases[:2]
    chosen = settings(protocols=[protocol])
    result = segment_case(
        {"none": Everything(0.0)}, query, [support], organs=ORGANS, settings=chosen
    )
    rows = score(result, query, organs=ORGANS, tolerance=2.0)
    (found,) = [r["value"] for r in rows if (r["organ"], r["metric"]) == ("liver", "hd95")]
    shown = (query.label == ORGANS["liver"]).any(axis=(1, 2)).sum()
    size = (64, 64, shown if protocol == "EP1" else query.depth)
    assert found == pytest.approx(np.linalg.norm(np.multiply(size, query.meta.spacing)))


def test_scores_are_those_of_the_masks_in_millimeters(cases):
    *supports, query = cases[:3]
    result = segment_case(
        {"copy": CopyPredictor()}, query, supports, organs=ORGANS, settings=settings(shots=2)
    )
    rows = iter(score(result, query, organs=ORGANS, tolerance=6.0))
    across, along = query.meta.spacing[0], query.meta.spacing[2]
    assert along > 3 * across
    for task in result.tasks:
        slices = [z for z in range(query.depth) if z in task.slices]
        truth = query.label[slices] == ORGANS[task.organ]
        spacing = (along, across, across)
        values = measure(task.mask[slices], truth, spacing=spacing, tolerance=6.0)
        for metric, value in values.items():
            row = next(rows)
            assert (row["model"], row["protocol"]) == ("copy", task.protocol)
            assert (row["organ"], row["metric"]) == (task.organ, metric)
            assert row["query"] == query.name
            assert row["value"] == value
    assert not list(rows)


def test_a_mask_outside_the_protocols_slices_stays_empty(cases):
    support, query = cases[:2]
    result = segment_case(
        {"all": Everything()}, query, [support], organs=ORGANS, settings=settings(protocols=["EP1"])
    )
    for task in result.tasks:
        shown = (query.label == ORGANS[task.organ]).any(axis=(1, 2))
        assert task.mask[shown].all()
        assert not task.mask[~shown].any()


def test_the_size_of_the_batch_changes_no_mask(trained, cases):
    exact = Exact(CATNet.from_pretrained(trained().model))
    predictors = {"catnet": exact, "copy": CopyPredictor()}
    one, five, all_at_once = (
        segment_case(
            predictors, cases[3], cases[:2], organs=ORGANS, settings=settings(batch=size, shots=2)
        )
        for size in (1, 5, 12)
    )
    for result in (five, all_at_once):
        for expected, task in zip(one.tasks, result.tasks, strict=True):
            assert (task.predictor, task.protocol) == (expected.predictor, expected.protocol)
            assert (task.mask == expected.mask).all()
        for key, fused in result.fused.items():
            assert (fused.label == one.fused[key].label).all()
    shares = [task.mask.mean() for task in one.tasks if task.predictor == "catnet"]
    assert max(shares) > 0
    assert min(shares) < 1


@pytest.fixture
def encoded(monkeypatch):
    """The batches of slices that any network encodes, as they come."""
    batches = []
    encode = CATNet.encode

    def noting(self, images):
        batches.append([image.numpy().tobytes() for image in images])
        return encode(self, images)

    monkeypatch.setattr(CATNet, "encode", noting)
    return batches


@pytest.mark.parametrize("shots", [1, 2])
def test_every_query_slice_and_every_support_is_encoded_once(
    shots, trained, network, cases, encoded
):
    query, *supports = cases[: shots + 1]
    chosen = settings(shots=shots, batch=5)
    result = segment_case(
        {"catnet": network(trained())}, query, supports, organs=ORGANS, settings=chosen
    )
    known = {image.tobytes(): number for number, image in enumerate(query.image)}
    query_batches = [[known[x] for x in batch] for batch in encoded if batch[0] in known]
    assert query_batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    given = [image for batch in encoded for image in batch if image not in known]
    places = {
        (shot, number)
        for task in result.tasks
        for chunk in task.chunks
        for shot, number in enumerate(chunk.support)
    }
    wanted = {supports[shot].image[number].tobytes() for shot, number in places}
    assert len(given) == len(wanted)
    assert set(given) == wanted
    assert max(map(len, encoded)) <= 5


def test_ep1_alone_encodes_no_slice_without_an_organ(trained, network, cases, encoded):
    support, query = cases[:2]
    organs = {"left kidney": 3}
    segment_case(
        {"catnet": network(trained())},
        query,
        [support],
        organs=organs,
        settings=settings(protocols=["EP1"]),
    )
    shown = [image for image, truth in zip(query.image, query.label, strict=True) if 3 in truth]
    known = {image.tobytes() for image in query.image}
    assert [x for batch in encoded for x in batch if x in known] == [x.tobytes() for x in shown]


def test_the_mask_of_a_task_is_what_the_network_says_of_single_episodes(trained, cases):
    """The whole way of an evaluation against one episode at a time through `CATNet.forward`."""
    from catnet.episode import Episode

    support, query = cases[:2]
    model = CATNet.from_pretrained(trained().model)
    predictor = NetworkPredictor(model, device=CPU, precision=torch.float32)
    result = segment_case(
        {"catnet": predictor}, query, [support], organs=ORGANS, settings=settings(batch=7)
    )
    for task in result.tasks:
        for chunk in task.chunks:
            source = chunk.support[0]
            mask = np.float32(support.label[source] == ORGANS[task.organ])
            for place in chunk.query[::2]:
                episode = Episode(
                    torch.tensor(support.image[source])[None, None, None],
                    torch.tensor(mask)[None, None],
                    torch.tensor(query.image[place])[None, None],
                    torch.zeros(1, 64, 64),
                )
                with torch.no_grad():
                    expected = model(episode).probability[0] > 0.5
                assert (task.mask[place] == expected.numpy()).all()


def test_copying_takes_the_mean_of_the_shots_and_looks_at_nothing(cases):
    masks = np.zeros((3, 32, 32), dtype=np.float32)
    masks[:, 0, 0] = 1
    masks[:2, 0, 1] = 1
    masks[0, 0, 2] = 1
    copy = CopyPredictor()
    support = copy.support(np.zeros_like(masks), masks)
    assert copy.query(np.zeros((2, 32, 32), dtype=np.float32)) is None
    for probability in copy.segment(support, None, 2):
        np.testing.assert_allclose(probability[0, :4], [1, 2 / 3, 1 / 3, 0])


def test_the_most_probable_organ_wins_a_voxel():
    fused = Fused.empty((3, 1, 4))
    fused.add(1, np.array([[[0.4, 0.6, 0.9, 0.5]], [[0.7, 0.7, 0.7, 0.7]]], np.float32), [0, 2])
    fused.add(2, np.array([[[0.5, 0.8, 0.8, 0.51]], [[0.7, 0.71, 0.1, 0.69]]], np.float32), [0, 2])
    assert fused.label[:, 0].tolist() == [[0, 2, 1, 2], [0, 0, 0, 0], [1, 2, 1, 1]]
    assert fused.label.dtype == np.uint16
