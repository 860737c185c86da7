"""The non-local block against a published implementation's numbers and against its equations."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.nonlocal_block import NonLocal


def build(kwargs):
    return NonLocal(
        kwargs["in_channels"],
        width=kwargs.get("inter_channels"),
        subsample=kwargs.get("sub_sample", True),
        norm=kwargs.get("bn_layer", True),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "path", configurations("nonlocal_embedded_gaussian"), ids=lambda path: path.stem
)
def test_agrees_with_the_reference_code(path, dtype):
    golden = read(path, dtype)
    module = build(golden.kwargs).to(dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    with torch.no_grad():
        y = module(golden.inputs["x"])
    torch.testing.assert_close(y, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


def pair(**options):
    torch.manual_seed(0)
    module = NonLocal(6, width=3, **options).double().eval()
    return module, torch.randn(1, 6, 3, 5).double(), torch.randn(1, 6, 5, 3).double()


def positions(layer, x):
    weight = layer.weight[:, :, 0, 0]
    bias = 0 if layer.bias is None else layer.bias
    height, width = x.shape[-2:]
    return [[weight @ x[0, :, i, j] + bias for j in range(width)] for i in range(height)]


def largest(grid):
    """Channel-wise largest of each full 2 x 2 cell."""
    return [
        torch.stack([grid[i + di][j + dj] for di in (0, 1) for dj in (0, 1)]).amax(0)
        for i in range(0, len(grid) - 1, 2)
        for j in range(0, len(grid[0]) - 1, 2)
    ]


@pytest.mark.parametrize("subsample", [True, False])
def test_is_the_equations(subsample):
    module, x, context = pair(subsample=subsample)
    module.norm.running_mean.normal_()
    keys, values = positions(module.key, context), positions(module.value, context)
    keys, values = (
        largest(grid) if subsample else [position for row in grid for position in row]
        for grid in (keys, values)
    )
    z = module(x, context)[0]
    project = module.project.weight[:, :, 0, 0]
    for i, row in enumerate(positions(module.query, x)):
        for j, query in enumerate(row):
            weights = torch.stack([query @ key for key in keys]).softmax(0)
            y = sum(weight * value for weight, value in zip(weights, values, strict=True))
            y = project @ y + module.project.bias - module.norm.running_mean
            y = y / (1 + module.norm.eps) ** 0.5
            torch.testing.assert_close(z[:, i, j], x[0, :, i, j] + y)


def test_the_map_mixes_the_values():
    module, x, context = pair(subsample=False, norm=False)
    attention = module.attention_map(x, context)[0, 0]
    torch.testing.assert_close(attention.sum(-1), torch.ones(15).double())
    found = (module.value(context)[0].flatten(1) @ attention.T).reshape(1, 3, 3, 5)
    torch.testing.assert_close(module(x, context), x + module.project(found))


def test_the_map_shares_a_cell_and_leaves_out_the_odd_end():
    module, x, context = pair(subsample=True)
    attention = module.attention_map(x, context).reshape(15, 5, 3)
    torch.testing.assert_close(attention.sum((1, 2)), torch.ones(15).double())
    assert (attention[:, 4] == 0).all()
    assert (attention[:, :, 2] == 0).all()
    torch.testing.assert_close(attention[:, 0, 0], attention[:, 1, 1], atol=0, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 1)])
def test_takes_maps_too_thin_to_pool(size):
    module, x, _ = pair()
    context = torch.randn(1, 6, *size).double()
    assert module(x, context).isfinite().all()
    total = module.attention_map(x, context).sum(-1)
    torch.testing.assert_close(total, torch.ones(1, 1, 15).double())


@pytest.mark.parametrize("norm", [True, False])
def test_can_start_as_the_identity(norm):
    x = torch.randn(2, 16, 3, 5)
    module = NonLocal(16, norm=norm, identity_start=True)
    torch.testing.assert_close(module(x), x, atol=0, rtol=0)


def test_refuses_a_width_of_nothing():
    with pytest.raises(UserError, match="width"):
        NonLocal(32, width=0)
