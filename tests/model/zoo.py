"""What the tests of the zoo share: every name, a mechanism of it, maps to give it."""

import pytest
import torch
from torch import nn

from catnet.model.attention import ATTENTION, build_attention

DIM = 32
CROSS = [name for name, kind in ATTENTION.items() if kind.cross]
FEW = {"se": {"reduction": 4}, "cbam": {"reduction": 4}}  # of 2 hidden units, relu may leave none
everywhere = pytest.mark.parametrize("name", ATTENTION)
where_crossed = pytest.mark.parametrize("name", CROSS)


def build(name, **options):
    """In evaluation mode, no parameter at a starting value of zero, where it would hide a fault."""
    torch.manual_seed(0)
    module = build_attention(name, DIM, FEW.get(name, {}) | options).eval()
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return module


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def features(size=(9, 10), seed=0):
    return normal(2, DIM, *size, seed=seed)
