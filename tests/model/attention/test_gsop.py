"""Second-order pooling against the authors' numbers and against its equations."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.gsop import GSoP


def load(golden, **options):
    dim, channels = golden.kwargs["inplanes"], golden.kwargs["att_dim"]
    module = GSoP(dim, channels=channels, **options).to(golden.dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    return module


def close(ours, theirs, golden):
    tolerance = golden.tolerance(double=1e-6)
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("gsop_channel"), ids=lambda path: path.stem)
def test_channel_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    module = load(golden, stride=2 if golden.kwargs["planes"] <= 64 else 1)
    x = golden.inputs["x"]
    with torch.no_grad():
        close(module.channel(x), golden.outputs["att"], golden)
        close(module(x), golden.outputs["y"], golden)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("gsop_spatial"), ids=lambda path: path.stem)
def test_spatial_with_their_divisor_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    module = load(golden, mode="spatial", divide_by="positions")
    x = golden.inputs["x"]
    tolerance = golden.tolerance()
    with torch.no_grad():
        torch.testing.assert_close(module.spatial(x), golden.outputs["att"], atol=tolerance, rtol=0)
        torch.testing.assert_close(module(x).relu(), golden.outputs["y"], atol=tolerance, rtol=0)


def randomized(**options):
    torch.manual_seed(0)
    module = GSoP(6, channels=4, **options).double().eval()
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module, torch.randn(1, 6, 3, 5).double(), torch.randn(1, 6, 5, 3).double()


def slow_weights(path, matrix, *, between):
    """sigmoid(W rows(norm(S))), one row and one filter at a time."""
    norm, rows, _, last = path.excite[:4]
    described = []
    for r, row in enumerate(matrix):
        normed = (row - norm.running_mean[r]) / (norm.running_var[r] + norm.eps) ** 0.5
        described += [rows.weight[4 * r + f, 0] @ normed + rows.bias[4 * r + f] for f in range(4)]
    described = between(torch.stack(described))
    return (last.weight[:, :, 0] @ described + last.bias).sigmoid()


def test_channel_is_the_equation():
    module, x, context = randomized()
    observed = module.channel.reduce(context)[0].flatten(1)
    covariance = torch.zeros(4, 4).double()
    for i in range(4):
        for j in range(4):
            left, right = observed[i] - observed[i].mean(), observed[j] - observed[j].mean()
            covariance[i, j] = (left * right).mean()
    weights = slow_weights(module.channel, covariance, between=lambda value: value)
    torch.testing.assert_close(module(x, context)[0], x[0] * weights[:, None, None])


def test_spatial_is_a_covariance_over_the_channels():
    module, x, context = randomized(mode="spatial", grid=3)
    rows, columns = (module.spatial.cells(part)[0] for part in (x, context))
    covariance = torch.zeros(9, 9).double()
    for i in range(9):
        for j in range(9):
            left, right = rows[:, i] - rows[:, i].mean(), columns[:, j] - columns[:, j].mean()
            covariance[i, j] = (left * right).mean()
    weights = slow_weights(module.spatial, covariance, between=torch.relu).reshape(1, 3, 3)
    spread = torch.nn.functional.adaptive_avg_pool2d(weights, (3, 5))
    torch.testing.assert_close(module(x, context), x * spread)


def test_the_divisors_agree_where_there_are_as_many_channels_as_positions():
    module, x, context = randomized(mode="spatial", grid=2)
    other = GSoP(6, channels=4, mode="spatial", grid=2, divide_by="positions").double().eval()
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x, context), other(x, context))


def test_both_is_the_mean_of_the_two():
    module, x, context = randomized(mode="both", grid=3)
    alone = [
        GSoP(6, channels=4, mode=mode, grid=3).double().eval() for mode in ("channel", "spatial")
    ]
    for part in alone:
        part.load_state_dict(module.state_dict(), strict=False)
    expected = (alone[0](x, context) + alone[1](x, context)) / 2
    torch.testing.assert_close(module(x, context), expected)


@pytest.mark.parametrize("mode", ["channel", "spatial", "both"])
def test_trains_on_a_single_episode(mode):
    module = GSoP(6, channels=4, mode=mode).train()
    x = torch.randn(1, 6, 3, 5, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(value.grad.isfinite().all() for value in module.parameters())


@pytest.mark.parametrize(
    "options",
    [{"mode": "row"}, {"channels": 1}, {"stride": 0}, {"grid": 1}, {"divide_by": "heads"}],
)
def test_refuses_bad_options(options):
    with pytest.raises(UserError, match=next(iter(options))):
        GSoP(32, **options)
