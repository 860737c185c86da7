"""Counted operations, memory and time of modules whose cost is known by hand."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from catnet.model.measure import measure, multiply_adds, pass_through, peak_bytes, seconds

CPU = torch.device("cpu")
MIB = 2**20


class Attention(nn.Module):
    def forward(self, x, context=None):
        context = x if context is None else context
        query, key = x.flatten(2).mT, context.flatten(2).mT
        found = F.scaled_dot_product_attention(query, key, key)
        return found.mT.unflatten(-1, x.shape[-2:])


class Lavish(nn.Module):
    """Holds 16 copies of its map for a moment, and keeps none of them for the backward pass."""

    def forward(self, x):
        return torch.cat([x] * 16).sum(dim=0, keepdim=True)


class Keeping(nn.Module):
    """Keeps what is between its steps for the backward pass: 8 maps."""

    def forward(self, x):
        for _ in range(8):
            x = x.exp()
        return x


def test_a_convolution_multiplies_and_adds_once_a_weight_and_place():
    x = torch.zeros(2, 3, 5, 7)
    assert multiply_adds(nn.Conv2d(3, 4, 3, padding=1), x) == 2 * 5 * 7 * 4 * 3 * 9
    assert multiply_adds(nn.Conv2d(3, 3, 3, padding=1, groups=3), x) == 2 * 5 * 7 * 3 * 9


def test_fused_attention_is_its_two_products():
    x, context = torch.zeros(2, 6, 5, 7), torch.zeros(2, 6, 3, 2)
    assert multiply_adds(Attention(), x) == 2 * 2 * 35 * 35 * 6
    assert multiply_adds(Attention(), x, context) == 2 * 2 * 35 * 6 * 6


def test_what_is_no_product_of_matrices_is_not_counted():
    x = torch.zeros(1, 4, 6, 6)
    assert multiply_adds(nn.Sequential(nn.AvgPool2d(2), nn.Softmax(1), nn.Sigmoid()), x) == 0


def test_counting_changes_neither_the_module_nor_the_map():
    module, x = nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 2, 2)
    multiply_adds(module, x)
    assert module.weight.device == x.device == CPU


@pytest.mark.parametrize(("module", "maps"), [(Lavish(), 16), (Keeping(), 8)])
def test_peak_sees_scratch_space_and_what_is_kept(module, maps):
    """A map is one MiB; beside what the module is known to hold there are at most four."""
    x = torch.zeros(1, 4, 256, 256)
    peak = peak_bytes(pass_through(module, x, weights=[]), CPU)
    assert maps * MIB <= peak <= (maps + 4) * MIB


def test_peak_has_the_gradients_but_not_the_weights():
    """A mebibyte of weights, and as much of gradient; the map is nothing beside it."""
    module = nn.Conv2d(512, 512, 1, bias=False)
    x = torch.zeros(1, 512, 1, 1)
    step = pass_through(module, x, weights=module.parameters())
    step()
    assert MIB <= peak_bytes(step, CPU) < 1.2 * MIB


def test_a_pass_leaves_no_gradient_behind():
    module, x = nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 2, 2)
    pass_through(module, x, weights=module.parameters())()
    assert module.weight.grad is module.bias.grad is x.grad is None
    assert not x.requires_grad


def test_seconds_last_as_long_as_the_step():
    assert seconds(lambda: time.sleep(0.02), CPU) >= 0.02


def test_measure_brings_it_all_together():
    module, x = nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)
    cost = measure(module, x, repeat=3)
    assert (cost.parameters, cost.multiply_adds) == (12, 16 * 9)
    assert cost.peak_bytes > 0
    assert len(cost.seconds) == 3
    assert min(cost.seconds) > 0
