"""The plain network equals the library's: the pairs of the benchmark compare like with like.

Batch normalization by the kept statistics on both sides: with those of a batch the library's, which
encodes support and query together, are over two slices and the plain ones over one.
The weights are in double precision; the library takes its cosines in single precision, which is
what the tolerances allow for.
"""

import numpy as np
import pytest
import torch
from torch import nn
from trials import Exact

from catnet.bench.plain_evaluation import plain_volume
from catnet.bench.plain_network import plain_forward, plain_loss
from catnet.config import EvaluateSettings
from catnet.evaluate.cases import segment_case
from catnet.model.loss import Objective
from catnet.model.networks import initial_model
from catnet.train import open_training

SETTINGS = [(), ("model.output_stride=16", "model.rounds=3")]


def lively_model(folder):
    """Weights in double precision, with running statistics and a threshold that are not the first.

    Batches of noise move the statistics; the threshold lies where half of the query is found.
    """
    model = initial_model(folder.run.model, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.train()
        for _ in range(20):
            noise = torch.randn(4, 1, 64, 64, generator=generator, dtype=torch.float64)
            model.encode(noise)
        for norm in model.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.weight.uniform_(0.5, 1.5, generator=generator)
                norm.bias.uniform_(-0.2, 0.2, generator=generator)
    return model.eval()


def double_episode(folder, number):
    _, source = open_training(folder)
    episode = source.batch([source.generator(number)])
    double = [getattr(episode, name).double() for name in type(episode).__dataclass_fields__]
    return type(episode)(*double)


def center_threshold(model, episode):
    """Let the last mask be found in a part of the query."""
    with torch.no_grad():
        logits = plain_forward(model, episode).logits[-1]
        model.head.threshold += 2 * logits.median()


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: " ".join(s) or "default")
@pytest.mark.parametrize("number", range(2))
def test_loss_and_gradient_equal_the_library_s(scene, settings, number):
    folder = scene.run(*settings)
    model, episode = lively_model(folder), double_episode(folder, number)
    center_threshold(model, episode)
    train = folder.run.train
    plain = plain_loss(model, episode, alignment=train.alignment)
    weights = list(model.parameters())
    plain_gradient = torch.autograd.grad(plain, weights, allow_unused=True)
    library = Objective(model, alignment=train.alignment, early=train.early)(episode)
    gradient = torch.autograd.grad(library.total, weights, allow_unused=True)
    assert library.alignment > 0  # so that this part is compared too
    assert plain.item() == pytest.approx(library.total.item(), rel=1e-5)
    largest = max(part.abs().max().item() for part in gradient if part is not None)
    for ours, theirs in zip(plain_gradient, gradient, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5 * largest)


@pytest.mark.parametrize("protocol", ["EP1", "EP2"])
def test_masks_equal_the_library_s(scene, protocol):
    folder = scene.run()
    organs = folder.card.organs
    query, support = scene.cases[:2]
    model = lively_model(folder)
    center_threshold(model, double_episode(folder, 0))
    plain = plain_volume(model, query.folder, support.folder, organs=organs, protocol=protocol)
    result = segment_case(
        {"catnet": Exact(model)},
        query,
        [support],
        organs=organs,
        settings=EvaluateSettings(protocols=(protocol,)),
    )
    assert {task.organ for task in result.tasks} == set(organs)
    for task in result.tasks:
        assert 0.001 < task.mask.mean() < 0.9
        np.testing.assert_array_equal(plain[task.organ], task.mask)
