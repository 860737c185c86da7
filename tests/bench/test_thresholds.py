"""A new network that keeps as little as a trained one."""

import torch

from catnet.bench.thresholds import SHARE, said
from catnet.bench.volumes import as_trained, library_predictor, plain_model


def kept(predictor, scene):
    level = torch.tensor(predictor.model.settings.keep_threshold).logit()
    both = said(predictor, *scene.cases[:2], organs=scene.card.organs)
    return [(part > level).float().mean().item() for part in both]


def test_its_masks_keep_a_small_share(scene):
    assert max(kept(library_predictor(scene.run(), scene), scene)) > 0.5
    predictor, share = as_trained(scene)
    assert 0 < share < 3 * SHARE
    assert all(0 < one < 3 * SHARE for one in kept(predictor, scene))


def test_the_plain_side_has_the_same_one(scene):
    library, plain = as_trained(scene)[0].model, plain_model(scene)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(library.state_dict()[name], weight, rtol=1e-4, atol=1e-4)
