"""Small networks and episodes, for the tests of the model."""

import jaxtyping
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from catnet.config import ModelSettings
from catnet.episode import Episode
from catnet.model import network as whole
from catnet.model.encoder import Encoded
from catnet.model.networks import initial_model

SMALL = {"encoder": "tu-test_resnet", "output_stride": 8, "dim": 32, "rounds": 2}


class Patches(nn.Module):
    """Stands in for the encoder where what follows it is examined: one convolution a map."""

    deep_channels = 24

    def __init__(self, *, name, weights, output_stride, dim):
        super().__init__()
        self.feature = nn.Conv2d(1, dim, output_stride, stride=output_stride)
        self.deep = nn.Conv2d(1, self.deep_channels, output_stride, stride=output_stride)

    def forward(self, images):
        return Encoded(self.feature(images), self.deep(images))


def make_network(name="catnet", **changes):
    small = {key: value for key, value in SMALL.items() if name == "catnet" or key != "rounds"}
    model = initial_model(ModelSettings(name=name, **(small | changes)), seed=0)
    generator = torch.Generator().manual_seed(1)
    # timm starts the last batch norm of every residual branch at zero. Such a branch gives nothing
    # and what stands in it receives no gradient, so every parameter that is all zero is disturbed.
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, mean=0.2, std=0.1, generator=generator)
    return divide(model.eval())


@torch.no_grad()
def divide(model):
    """Shift and scale the masks, so that they keep some positions and drop others.

    The features of an untrained network are all alike; its masks would keep all or nothing, and
    hide a fault in what is done with them.
    """
    first, *later = model(make_episode()).logits
    if model.name == "adnet":
        model.head.threshold.add_(2 * first.mean())
    if model.name == "qnet":
        model.threshold.bias.add_(2 * first.mean())
    if model.name != "catnet":
        return model
    last = model.mife.classify[-1]
    last.bias.copy_((last.bias - first.mean()) / first.std())
    last.weight.div_(first.std())
    if model.head.threshold is not None:
        model.head.threshold.add_(2 * torch.stack(later).mean())
    return model


def make_episode(*, batch=2, shots=1, height=64, width=96, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, shots + 1, height, width)
    images = torch.randn(shape, generator=generator)
    coarse = torch.randn(batch, shots + 1, 5, 5, generator=generator)
    masks = (F.interpolate(coarse, shape[-2:], mode="bilinear") > 0.2).float()
    images = images + 2 * masks
    return Episode(images[:, 1:, None], masks[:, 1:], images[:, :1], masks[:, 0])


@pytest.fixture
def unchecked():
    """As a user runs it: without the checks of types and shapes that the tests install."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def network():
    """`network("panet")`, `network(rounds=3, ...)`: small, evaluating, its weights fixed."""
    return make_network


@pytest.fixture
def headless(monkeypatch):
    """As `network`, with one convolution in the place of the encoder, to save time."""
    monkeypatch.setattr(whole, "Encoder", Patches)
    return make_network


@pytest.fixture
def episodes():
    """`episodes(shots=3, ...)`: random slices with coarse masks, neither empty nor full."""
    return make_episode
