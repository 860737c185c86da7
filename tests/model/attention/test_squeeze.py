"""Squeeze-and-excitation against the reference code's numbers and against its equation."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.squeeze import SqueezeExcitation


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("se_moskomule"), ids=lambda path: path.stem)
def test_agrees_with_the_reference_code(path, dtype):
    golden = read(path, dtype)
    dim, reduction = golden.kwargs["channel"], golden.kwargs.get("reduction", 16)
    module = SqueezeExcitation(dim, reduction=reduction).to(dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    with torch.no_grad():
        y = module(golden.inputs["x"])
    torch.testing.assert_close(y, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


def test_is_the_equation():
    torch.manual_seed(0)
    module = SqueezeExcitation(6, reduction=2).double()
    x, context = torch.randn(6, 3, 5).double(), torch.randn(6, 2, 7).double()
    down, up = module.excite[0].weight, module.excite[2].weight
    y = module(x[None], context[None])[0]
    for c in range(6):
        hidden = [sum(down[j, k] * context[k].mean() for k in range(6)) for j in range(3)]
        score = sum(up[c, j] * max(hidden[j], 0) for j in range(3))
        torch.testing.assert_close(y[c], x[c] / (1 + torch.exp(-score)))


@pytest.mark.parametrize("reduction", [0, -2, 33])
def test_refuses_a_reduction_without_hidden_channels(reduction):
    with pytest.raises(UserError, match="reduction"):
        SqueezeExcitation(32, reduction=reduction)
