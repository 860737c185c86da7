"""Feed-forward networks: by name, by the slow equation, with their errors."""

import pytest
import torch
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.ffn import FFN, ConvFFN, Mlp, hidden_channels


@torch.no_grad()
@pytest.mark.parametrize("name", FFN)
def test_every_network_keeps_the_shape(name, generator):
    module = FFN[name](6, ratio=2.5)
    x = torch.randn(2, 6, 5, 3, generator=generator)
    assert module(x).shape == x.shape
    assert module.expand.out_channels == 15


@pytest.mark.parametrize("dim", range(1, 60))
def test_a_quotient_of_whole_numbers_gives_back_its_numerator(dim):
    for hidden in range(1, 200):
        assert hidden_channels(dim, hidden / dim) == hidden
    assert hidden_channels(10, 2.59) == 25


@torch.no_grad()
def test_mlp_is_the_slow_equation(generator):
    module = Mlp(4, ratio=3).double()
    x = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64)
    ours = module(x[None])[0]
    first, second = (layer.weight[:, :, 0, 0] for layer in (module.expand, module.reduce))
    for h in range(3):
        for w in range(5):
            hidden = F.gelu(first @ x[:, h, w] + module.expand.bias)
            expected = second @ hidden + module.reduce.bias
            torch.testing.assert_close(ours[:, h, w], expected, atol=1e-9, rtol=0)


@torch.no_grad()
def test_convolution_sees_the_kernel_and_no_further(generator):
    """A change at one position reaches 2 rows and columns away under a kernel of 5."""
    module = ConvFFN(4, ratio=2, kernel=5)
    x = torch.randn(1, 4, 9, 9, generator=generator)
    touched = x.clone()
    touched[..., 4, 4] += 1
    moved = (module(touched) != module(x)).any(dim=1)[0]
    assert moved[2:7, 2:7].all()
    assert moved.sum() == 25


@torch.no_grad()
def test_stride_and_out_dim(generator):
    x = torch.randn(1, 4, 9, 6, generator=generator)
    assert ConvFFN(4, kernel=3, stride=2, out_dim=7)(x).shape == (1, 7, 5, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ConvFFN(4, kernel=4), "kernel=4 must be odd"),
        (lambda: ConvFFN(4, stride=0), "stride=0 must be at least 1"),
        (lambda: Mlp(4, ratio=0.1), "ratio=0.1 leaves no channel of dim=4"),
        (lambda: ConvFFN(4, ratio=0.0), "ratio=0.0 leaves no channel of dim=4"),
    ],
)
def test_bad_options(build, message):
    with pytest.raises(UserError, match=message):
        build()
