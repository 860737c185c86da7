from contextlib import contextmanager

import numpy as np
import pytest
import torch

from catnet.config import EvaluateSettings
from catnet.evaluate import browse
from catnet.evaluate.browse import CaseRecorder, WatchedPredictor, choose_slices, smaller
from catnet.evaluate.cases import score, segment_case
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.run import evaluate
from catnet.model.catnet import CATNet
from catnet.model.mife import similarity_prior
from catnet.model.ops import to_tokens
from catnet.model.trace import traced_prior
from catnet.views import load_views

CPU = torch.device("cpu")
ORGANS = {"liver": 1, "spleen": 4}


class Counting(NetworkPredictor):
    """Counts the slices that it encodes."""

    encoded = 0

    def query(self, images):
        self.encoded += len(images)
        return super().query(images)


@pytest.fixture
def predictor(trained):
    model = CATNet.from_pretrained(trained().model)
    return Counting(model, device=CPU, precision=torch.float32)


@pytest.fixture
def record(predictor, cases):
    """Evaluate case 1 with case 3 as support, and record it."""

    def run(*protocols, organs=ORGANS, watch=True):
        query, supports = cases[0], [cases[2]]
        watched = WatchedPredictor(predictor)
        recorder = CaseRecorder(
            watched=watched,
            name="catnet",
            protocol=protocols[0],
            query=query,
            supports=supports,
            organs=organs,
        )
        result = segment_case(
            {"catnet": watched if watch else predictor},
            query,
            supports,
            organs=organs,
            settings=EvaluateSettings(protocols=protocols, batch=4),
            watch=recorder if watch else None,
        )
        return result, recorder, list(score(result, query, organs=organs, tolerance=2.0))

    return run


@pytest.mark.parametrize("protocols", [("EP1", "EP2"), ("EP2",)])
def test_views_are_what_was_evaluated(record, cases, protocols):
    result, recorder, scores = record(*protocols)
    views = recorder.case_views(scores, flip=False)
    assert (views.query, views.support, views.organs) == ("1", "3", ("liver", "spleen"))
    assert set(views.protocols) == {protocols[0]}
    tasks = {task.organ: task for task in result.tasks if task.protocol == protocols[0]}
    for place in range(len(views.organ)):
        organ = views.organs[views.organ[place]]
        number, source = views.query_slice[place], views.support_slice[place]
        (chunk,) = [chunk for chunk in tasks[organ].chunks if number in chunk.query]
        assert source == chunk.support[0]
        np.testing.assert_array_equal(views.rounds[place, -1], tasks[organ].mask[number])
        np.testing.assert_array_equal(views.truth[place], cases[0].label[number] == ORGANS[organ])
        shown = cases[2].label[source] == ORGANS[organ]
        np.testing.assert_array_equal(views.support_mask[place], shown)
    for organ, dice in zip(views.organs, views.dice, strict=True):
        same = [r for r in scores if r["organ"] == organ and r["protocol"] == protocols[0]]
        assert dice == same[0]["value"]
        assert same[0]["metric"] == "dice"


def test_every_round_equals_the_slice_predicted_alone(record, predictor, cases):
    _, recorder, scores = record("EP1")
    views = recorder.case_views(scores, flip=False)
    for place in (0, len(views.organ) - 1):
        number, source = views.query_slice[place], views.support_slice[place]
        mask = (cases[2].label[source : source + 1] == [1, 4][views.organ[place]]).astype("f4")
        support = predictor.support(np.array(cases[2].image[source : source + 1]), mask)
        query = predictor.query(np.array(cases[0].image[number : number + 1]))
        rounds = predictor.predict(support, query, 1).rounds
        expected = np.stack([p[0].numpy() > 0.5 for p in rounds])
        np.testing.assert_array_equal(views.rounds[place], expected)
        truth = views.truth[place]
        total = expected.sum((1, 2)) + truth.sum()
        dice = 200 * (expected & truth).sum((1, 2)) / np.where(total, total, np.nan)
        np.testing.assert_allclose(views.slice_dice[place], dice)
        share = to_tokens(support.mask, like=support.encoded.feature)
        prior = similarity_prior(support.encoded.deep, share, query.deep)[0].numpy()
        np.testing.assert_allclose(views.prior[place], 255 * prior, atol=1)


def test_watching_changes_no_mask_and_encodes_no_slice_twice(record, predictor):
    plain, _, _ = record("EP1", "EP2", watch=False)
    before, predictor.encoded = predictor.encoded, 0
    watched, _, _ = record("EP1", "EP2")
    assert predictor.encoded == before
    for one, other in zip(plain.tasks, watched.tasks, strict=True):
        np.testing.assert_array_equal(one.mask, other.mask)


def test_a_network_without_a_prior_shows_none(record, monkeypatch):
    @contextmanager
    def nothing(model):
        with traced_prior(torch.nn.Identity()) as priors:
            yield priors

    monkeypatch.setattr(browse, "traced_prior", nothing)
    _, recorder, scores = record("EP1")
    assert recorder.case_views(scores, flip=True).prior is None


def test_flipped_views_show_the_front_up(record):
    _, recorder, scores = record("EP1")
    plain, flipped = (recorder.case_views(scores, flip=flip) for flip in (False, True))
    for name in ("images", "support_images", "truth", "support_mask", "rounds", "prior"):
        one, other = getattr(plain, name), getattr(flipped, name)
        np.testing.assert_array_equal(other, one[..., ::-1, :])
    assert (plain.images != flipped.images).any()


def test_large_slices_are_shown_small(monkeypatch, record):
    monkeypatch.setattr(browse, "LONGEST", 20)
    _, recorder, scores = record("EP1")
    views = recorder.case_views(scores, flip=False)
    assert views.images.shape[1:] == views.truth.shape[1:] == views.rounds.shape[2:] == (16, 16)
    values = np.arange(16.0).reshape(4, 4)
    monkeypatch.setattr(browse, "LONGEST", 2)
    np.testing.assert_array_equal(smaller(values), [[2.5, 4.5], [10.5, 12.5]])


@pytest.mark.parametrize(
    ("counted", "shown", "most", "expected"),
    [
        (range(10), range(10), 4, {0, 3, 6, 9}),
        (range(3), range(3), 12, {0, 1, 2}),
        (range(10), [4, 5], 4, {4, 5, 0, 9}),
        (range(10), [2, 4, 6, 8], 2, {2, 8}),
        ([7], [7], 1, {7}),
    ],
)
def test_slices_are_spread_and_the_organs_come_first(counted, shown, most, expected):
    assert choose_slices(counted, shown=shown, most=most) == expected


def test_an_evaluation_leaves_a_file_a_case(trained):
    folder = trained("evaluate.baselines=[]", "evaluate.predictions=false")
    evaluation = evaluate(folder, device=CPU, report=lambda *what: None)
    files = sorted((evaluation.path / "browser").iterdir())
    assert [path.name for path in files] == ["1_by_3.npz", "2_by_3.npz"]
    views = load_views(files[0])
    rows = evaluation.rows.query("query == '1' and metric == 'dice' and protocol == 'EP1'")
    assert dict(zip(views.organs, views.dice, strict=True)) == pytest.approx(
        dict(zip(rows["organ"], rows["value"], strict=True))
    )


def test_without_pictures_there_is_no_browser(trained):
    folder = trained("evaluate.baselines=[]", "evaluate.pictures=false")
    evaluation = evaluate(folder, device=CPU, report=lambda *what: None)
    assert not (evaluation.path / "browser").exists()
