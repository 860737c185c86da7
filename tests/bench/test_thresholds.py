"""A new network that keeps as little as a trained one."""

import pytest
import torch

from catnet.bench.thresholds import SHARE, said
from catnet.bench.volumes import as_trained, library_predictor


def kept(predictor, scene):
    level = torch.tensor(predictor.model.settings.keep_threshold).logit()
    both = said(predictor, *scene.cases[:2], organs=scene.card.organs)
    return [(part > level).float().mean().item() for part in both]


def test_its_masks_keep_a_small_share(scene):
    assert max(kept(library_predictor(scene.run(), scene), scene)) > 0.5
    predictor, share = as_trained(scene)
    assert 0 < share < 3 * SHARE
    assert all(0 < one < 3 * SHARE for one in kept(predictor, scene))


def test_it_is_the_same_every_time(scene):
    one, other = (as_trained(scene) for _ in range(2))
    assert one[1] == other[1]
    assert one[0].model.head.threshold.item() == pytest.approx(other[0].model.head.threshold.item())
