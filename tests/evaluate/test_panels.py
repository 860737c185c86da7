import numpy as np
import pytest
import torch

from catnet.config import EvaluateSettings
from catnet.evaluate import pictures
from catnet.evaluate.cases import segment_case
from catnet.evaluate.pictures import draw_case, draw_organ, encode_shown, shown
from catnet.evaluate.predictors import NetworkPredictor
from catnet.model.catnet import CATNet
from catnet.pictures import PREDICTED, TRUTH, Panel, draw_panels


def test_a_row_shows_the_support_and_every_round_of_the_middle_slice(trained, cases):
    support, query = cases[:2]
    model = CATNet.from_pretrained(trained().model)
    predictor = NetworkPredictor(model, device=torch.device("cpu"), precision=torch.float32)
    result = segment_case(
        {"catnet": predictor},
        query,
        [support],
        organs={"liver": 1},
        settings=EvaluateSettings(protocols=["EP1"]),
    )
    (task,) = result.tasks
    encoded = encode_shown(predictor, [task], query=query)[shown(task).place]
    first, *rounds = draw_organ(
        task, predictor, encoded=encoded, query=query, support=support, number=1
    )
    chunk = task.chunks[1]
    source, place = chunk.support[0], chunk.query[len(chunk.query) // 2]
    assert first.title == f"liver, support {source}"
    np.testing.assert_array_equal(first.image, support.image[source])
    np.testing.assert_array_equal(first.contours[TRUTH], support.label[source] == 1)
    assert [panel.title for panel in rounds] == [
        f"query {place}, M_{number}" for number in range(3)
    ]
    for panel in rounds:
        np.testing.assert_array_equal(panel.image, query.image[place])
        np.testing.assert_array_equal(panel.contours[TRUTH], query.label[place] == 1)
    np.testing.assert_array_equal(rounds[-1].contours[PREDICTED] > 0.5, task.mask[place])


def test_a_slice_that_several_organs_show_is_encoded_once(trained, cases, tmp_path, monkeypatch):
    support, query = cases[:2]
    folder = trained()
    model = CATNet.from_pretrained(folder.model)
    predictor = NetworkPredictor(model, device=torch.device("cpu"), precision=torch.float32)
    organs = {"right kidney": 2, "left kidney": 3}
    settings = EvaluateSettings(protocols=["EP1", "EP2"])
    result = segment_case({"catnet": predictor}, query, [support], organs=organs, settings=settings)
    asked, given = [], []

    def encode(images, query=predictor.query):
        asked.extend(images.copy())
        return query(images)

    monkeypatch.setattr(predictor, "query", encode)
    monkeypatch.setattr(pictures, "save_panels", lambda path, rows, **_: given.extend(rows))
    draw_case(
        tmp_path / "x.png",
        result.tasks,
        predictor,
        query=query,
        supports=[support],
        card=folder.card,
    )
    places = [shown(task).place for task in result.tasks if task.protocol == "EP1"]
    assert [row[1].title for row in given] == [f"query {place}, M_0" for place in places]
    assert len(places) == 2
    np.testing.assert_array_equal(asked, query.image[sorted(set(places))])
    assert len(set(places)) == 1, "else nothing could be shared here"
    for task, row in zip(result.tasks, given, strict=False):
        drawn = row[-1].contours[PREDICTED] > 0.5
        np.testing.assert_array_equal(drawn, task.mask[shown(task).place])


@pytest.mark.parametrize("flip", [False, True])
def test_the_front_of_the_patient_is_up(flip):
    image = np.arange(12.0).reshape(3, 4)
    figure = draw_panels([[Panel("a", image), Panel("b", image)], [Panel("c", image)]], flip=flip)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["a", "b", "c"]
    for axes in shown:
        np.testing.assert_array_equal(axes.images[0].get_array(), image[::-1] if flip else image)


def test_a_mask_without_an_edge_has_no_contour():
    image = np.zeros((4, 4))
    square = np.zeros((4, 4))
    square[1:3, 1:3] = 1
    row = [Panel(name, image, {TRUTH: mask}) for name, mask in (("0", image), ("1", square))]
    empty, full = draw_panels([row], flip=False).axes
    assert not empty.collections
    assert len(full.collections) == 1
