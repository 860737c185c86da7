"""Efficient channel attention against the authors' numbers, its equation and its kernel rule."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.eca import EfficientChannelAttention, adaptive_kernel


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("eca_official"), ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    dim, kernel = golden.kwargs["channel"], golden.kwargs.get("k_size", 3)
    module = EfficientChannelAttention(dim, kernel=kernel).to(dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    with torch.no_grad():
        y = module(golden.inputs["x"])
    torch.testing.assert_close(y, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


def test_is_the_equation():
    torch.manual_seed(0)
    module = EfficientChannelAttention(7, kernel=5).double()
    x, context = torch.randn(7, 3, 5).double(), torch.randn(7, 2, 3).double()
    taps = module.convolution.weight[0, 0]
    y = module(x[None], context[None])[0]
    for c in range(7):
        near = [(j, c + j - 2) for j in range(5) if 0 <= c + j - 2 < 7]
        score = sum(taps[j] * context[k].mean() for j, k in near)
        torch.testing.assert_close(y[c], x[c] / (1 + torch.exp(-score)))


@pytest.mark.parametrize(
    ("dim", "kernel"),
    [(4, 1), (16, 3), (64, 3), (96, 3), (128, 5), (256, 5), (512, 5), (1024, 5), (2048, 7)],
)
def test_kernel_follows_from_the_channels(dim, kernel):
    assert adaptive_kernel(dim) == kernel
    assert EfficientChannelAttention(dim).convolution.weight.shape == (1, 1, kernel)


@pytest.mark.parametrize("options", [{"kernel": 4}, {"kernel": 0}, {"kernel": -1}, {"gamma": 0}])
def test_refuses_what_has_no_center(options):
    with pytest.raises(UserError, match=next(iter(options))):
        EfficientChannelAttention(32, **options)
