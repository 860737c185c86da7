"""Global context against the authors' numbers and against its equations."""

import pytest
import torch
from golden import configurations, read
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.context import GlobalContext

POOLING = {"att": "attention", "avg": "average"}


def build(kwargs):
    fusions = kwargs.get("fusion_types", ["channel_add"])
    names = [{"channel_add": "add", "channel_mul": "multiply"}[name] for name in listed(fusions)]
    return GlobalContext(
        kwargs["inplanes"],
        ratio=kwargs["ratio"],
        pooling=POOLING[kwargs.get("pooling_type", "att")],
        fusion="both" if len(names) == 2 else names[0],
    )


def listed(value):
    return value["__tuple__"] if isinstance(value, dict) else value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("gc_block"), ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    module = build(golden.kwargs).to(dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    with torch.no_grad():
        y = module(golden.inputs["x"])
    torch.testing.assert_close(y, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


def slow_transform(layers, g):
    first, norm, _, last = layers
    hidden = F.layer_norm(first.weight @ g + first.bias, (3,), norm.weight, norm.bias)
    return last.weight @ hidden.relu() + last.bias


@pytest.mark.parametrize("pooling", ["attention", "average"])
def test_is_the_equations(pooling):
    torch.manual_seed(0)
    module = GlobalContext(6, ratio=0.5, pooling=pooling, fusion="both").double()
    x, context = torch.randn(1, 6, 3, 5).double(), torch.randn(1, 6, 2, 7).double()
    y = module(x, context)[0]
    positions = [context[0, :, i, j] for i in range(2) for j in range(7)]
    weights = torch.full((14,), 1 / 14).double()
    if pooling == "attention":
        weights = torch.stack([module.where.weight[0] @ seen for seen in positions]).softmax(0)
    g = sum(weight * seen for weight, seen in zip(weights, positions, strict=True))
    scale, shift = slow_transform(module.multiply, g).sigmoid(), slow_transform(module.add, g)
    for i in range(3):
        for j in range(5):
            torch.testing.assert_close(y[:, i, j], scale * x[0, :, i, j] + shift)


@pytest.mark.parametrize("pooling", ["attention", "average"])
def test_the_map_is_what_pools_the_context(pooling):
    torch.manual_seed(0)
    module = GlobalContext(8, pooling=pooling).double()
    x, context = torch.randn(2, 8, 3, 5).double(), torch.randn(2, 8, 2, 7).double()
    attention = module.attention_map(x, context)
    assert attention.shape == (2, 1, 15, 14)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 1, 15).double())
    pooled = torch.einsum("bcm,bnm->bnc", context.flatten(2), attention[:, 0])
    expected = x.flatten(2) + module.add(pooled).transpose(1, 2)
    torch.testing.assert_close(module(x, context).flatten(2), expected)


def test_can_start_as_the_identity():
    x = torch.randn(2, 16, 3, 5)
    start = {
        fusion: GlobalContext(16, fusion=fusion, identity_start=True)(x)
        for fusion in ("add", "multiply")
    }
    torch.testing.assert_close(start["add"], x, atol=0, rtol=0)
    torch.testing.assert_close(start["multiply"], x / 2)


@pytest.mark.parametrize(
    "options", [{"ratio": 0.01}, {"ratio": 1 / 32}, {"pooling": "max"}, {"fusion": "concat"}]
)
def test_refuses_bad_options(options):
    with pytest.raises(UserError, match=next(iter(options))):
        GlobalContext(32, **options)
