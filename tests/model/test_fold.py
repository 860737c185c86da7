import pytest
import torch
from torch import nn

from catnet.config import ModelSettings
from catnet.model.fold import find_pairs, folded, replace
from catnet.model.networks import initial_model


@pytest.fixture
def make():
    """A small network whose normalizations are far from the identity."""

    def build(encoder, name="panet"):
        settings = ModelSettings(name=name, encoder=encoder, output_stride=16, dim=8)
        network = initial_model(settings, seed=0)
        generator = torch.Generator().manual_seed(1)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.running_var, module.weight.data, module.running_mean):
                    values.uniform_(0.3, 0.9, generator=generator)
                module.bias.data.uniform_(-1, 1, generator=generator)
        return network.eval()

    return build


@pytest.mark.parametrize("encoder", ["tu-resnet18", "resnet18"])
def test_a_folded_network_says_the_same_without_normalization(encoder, make):
    network = make(encoder)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    twin = folded(network)
    kinds = [type(module) for module in twin.encoder.modules()]
    assert nn.BatchNorm2d not in kinds
    images = torch.randn(3, 1, 96, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, given = network.encode(images), twin.encode(images)
    assert expected.deep.std() > 1e-3
    for one, other in ((given.feature, expected.feature), (given.deep, expected.deep)):
        assert (one - other).abs().max() < 1e-5 * other.abs().max()
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert twin.deepen is network.deepen


def test_without_normalization_there_is_nothing_to_fold(make):
    twin = folded(make("tu-resnet18"))
    assert folded(twin) is twin


class Twice(nn.Module):
    """Uses what its convolution made both normalized and as it is, or normalizes something else."""

    def __init__(self, *, other):
        super().__init__()
        self.conv1, self.bn1, self.other = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), other

    def forward(self, x):
        made = self.conv1(x)
        return self.bn1(made.relu() if self.other else made)


@pytest.mark.parametrize("other", [False, True])
def test_a_pair_is_what_follows_one_another(other):
    module = Twice(other=other).eval()
    pairs = find_pairs(module, torch.zeros(1, 1, 4, 4))
    assert pairs == ([] if other else [(module.conv1, module.bn1)])


def test_a_fold_that_says_something_else_is_not_used(make, monkeypatch):
    network = make("tu-resnet18")
    monkeypatch.setattr(
        "catnet.model.fold.fuse_conv_bn_eval", lambda convolution, norm: convolution
    )
    assert folded(network) is network


def test_what_is_shared_is_replaced_everywhere():
    one, other = nn.Identity(), nn.ReLU()
    module = nn.Sequential(one, nn.Sequential(one))
    replace(module, one, other)
    assert module[0] is module[1][0] is other
