"""What is compared in speed computes the same, its gradients included."""

import pytest
import torch
from plain import PLAIN

from catnet.model.attention import build_attention


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("size", [(9, 10), (8, 8)], ids=str)
def test_plain_equations_give_the_same_numbers_and_gradients(name, size, generator):
    module = build_attention(name, 16, {}).double()
    x = torch.randn(2, 16, *size, dtype=torch.float64, generator=generator, requires_grad=True)
    upstream = torch.randn(x.shape, dtype=torch.float64, generator=generator)
    ours, plain = module(x), PLAIN[name](module, x)
    torch.testing.assert_close(ours, plain)
    leaves = [x, *module.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(ours, leaves, upstream), torch.autograd.grad(plain, leaves, upstream)
    )
