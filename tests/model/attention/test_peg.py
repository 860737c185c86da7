"""The positional encoding generator of Twins, and that every encoding takes any map."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.position import POSITION, PositionalEncodingGenerator

everywhere = pytest.mark.parametrize("name", POSITION)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("path", configurations("twins_peg"), ids=lambda path: path.stem)
@torch.no_grad()
def test_gives_the_authors_numbers(path, dtype):
    golden = read(path, dtype)
    if golden.kwargs["in_chans"] != golden.kwargs.get("embed_dim", 768):
        pytest.skip("other channels come out than go in; ours keeps them, as every encoding here")
    module = PositionalEncodingGenerator(
        golden.kwargs["in_chans"], stride=golden.kwargs.get("s", 1)
    ).to(dtype)
    module.load_state_dict(module.convert(golden.params), strict=True)
    y = module(golden.inputs["x"].mT.unflatten(-1, tuple(golden.meta["forward"][1:3])))
    expected = golden.outputs["y"]
    torch.testing.assert_close(y.flatten(2).mT, expected, atol=golden.tolerance(), rtol=0)


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_equals_the_equation_written_slowly(stride, generator):
    module = PositionalEncodingGenerator(4, stride=stride).double()
    x = torch.randn(1, 4, 5, 3, dtype=torch.float64, generator=generator)
    y = module(x)
    for row, column in [(0, 0), (1, 1), (2, 0), (2, 1)]:
        expected = module.encode.bias + (x[0, :, row, column] if stride == 1 else 0)
        for i in range(3):
            for j in range(3):
                at = row * stride + i - 1, column * stride + j - 1
                if 0 <= at[0] < 5 and 0 <= at[1] < 3:
                    expected = expected + module.encode.weight[:, 0, i, j] * x[0, :, at[0], at[1]]
        torch.testing.assert_close(y[0, :, row, column], expected)


@torch.no_grad()
def test_border_of_a_constant_map_differs_from_its_middle():
    y = PositionalEncodingGenerator(4)(torch.ones(1, 4, 5, 5))
    assert torch.equal(y[..., 2, 2], y[..., 1, 2])
    assert not torch.allclose(y[..., 0, 2], y[..., 2, 2])


@everywhere
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (32, 8)], ids=str)
def test_any_map_keeps_its_shape(name, size, generator):
    x = torch.randn(2, 8, *size, generator=generator)
    y = POSITION[name](8)(x)
    assert y.shape == x.shape
    assert y.isfinite().all()


def test_only_none_leaves_the_map_as_it_is(generator):
    x = torch.randn(1, 8, 3, 4, generator=generator)
    assert [name for name in POSITION if torch.equal(POSITION[name](8)(x), x)] == ["none"]


def test_sine_is_free_of_parameters_and_of_the_input(generator):
    position = POSITION["sine"](8)
    x = torch.randn(2, 8, 3, 4, generator=generator)
    assert not position.state_dict()
    torch.testing.assert_close(position(x) - x, position(0 * x))


def test_bad_stride_is_named():
    with pytest.raises(UserError, match="stride=0"):
        PositionalEncodingGenerator(8, stride=0)
