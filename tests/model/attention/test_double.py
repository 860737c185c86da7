"""Double attention against a published implementation's numbers and against its equations."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.double import DoubleAttention


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("a2_gjylt"), ids=lambda path: path.stem)
def test_gather_and_distribute_agrees_with_the_reference_code(path, dtype):
    golden = read(path, dtype)
    options = {"features": golden.kwargs["c_m"], "maps": golden.kwargs["c_n"]}
    module = DoubleAttention(golden.kwargs["in_channels"], **options).to(dtype).eval()
    keys = module.load_state_dict(module.convert(golden.params), strict=False)
    assert set(keys.missing_keys) == {"expand.weight", "expand.bias"}, "theirs stops before W"
    assert not keys.unexpected_keys
    with torch.no_grad():
        z = module.gather_and_distribute(golden.inputs["x"])
    torch.testing.assert_close(z, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    module = DoubleAttention(6, features=3, maps=4).double()
    return module, torch.randn(1, 6, 3, 5).double(), torch.randn(1, 6, 2, 7).double()


def test_is_the_equations(pair):
    module, x, context = pair
    y = module(x, context)[0]
    values, seen = x[0].flatten(1).T, context[0].flatten(1).T
    a, b, v, w = (
        layer.weight[:, :, 0, 0]
        for layer in (module.feature, module.gather, module.distribute, module.expand)
    )
    descriptors = []
    for k in range(4):
        weights = torch.stack([b[k] @ position for position in seen]).softmax(0)
        features = [a @ position + module.feature.bias for position in seen]
        parts = zip(weights, features, strict=True)
        descriptors.append(sum(weight * feature for weight, feature in parts))
    for n, position in enumerate(values):
        share = (v @ position + module.distribute.bias).softmax(0)
        z = sum(share[k] * descriptors[k] for k in range(4))
        expected = position + w @ z + module.expand.bias
        torch.testing.assert_close(y[:, n // 5, n % 5], expected)


def test_the_map_is_what_mixes_the_context(pair):
    module, x, context = pair
    attention = module.attention_map(x, context)[0, 0]
    torch.testing.assert_close(attention.sum(-1), torch.ones(15).double())
    mixed = module.feature(context)[0].flatten(1) @ attention.T
    torch.testing.assert_close(mixed, module.gather_and_distribute(x, context)[0].flatten(1))


@pytest.mark.parametrize("option", ["features", "maps"])
def test_refuses_a_width_of_nothing(option):
    with pytest.raises(UserError, match=option):
        DoubleAttention(32, **{option: 0})
