"""CBAM against the authors' numbers and against its two equations."""

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.cbam import CBAM, pool


def build(kwargs):
    return CBAM(
        kwargs["gate_channels"],
        reduction=kwargs.get("reduction_ratio", 16),
        pools=kwargs.get("pool_types", ["avg", "max"]),
        spatial=not kwargs.get("no_spatial", False),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("path", configurations("cbam_official"), ids=lambda path: path.stem)
def test_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    module = build(golden.kwargs).to(dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    with torch.no_grad():
        y = module(golden.inputs["x"])
    torch.testing.assert_close(y, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


def test_poolings_by_hand():
    x = torch.tensor([[[[3.0, -4.0], [0.0, 1.0]]]]).double()
    assert pool(x, "avg").item() == 0
    assert pool(x, "max").item() == 3
    torch.testing.assert_close(pool(x, "lp").item(), 26**0.5)
    torch.testing.assert_close(pool(x, "lse"), x.exp().sum().log().reshape(1, 1))


def test_is_the_equations():
    torch.manual_seed(0)
    module = CBAM(6, reduction=2, kernel=3).double().eval()
    module.locate[1].running_mean.fill_(0.3)
    module.locate[1].running_var.fill_(2.0)
    x, context = torch.randn(1, 6, 3, 5).double(), torch.randn(1, 6, 4, 3).double()
    y = module(x, context)[0]
    scores = [module.excite(context.mean((2, 3))), module.excite(context.amax((2, 3)))]
    u = x[0] * sum(scores).sigmoid()[0, :, None, None]
    taps = module.locate[0].weight[0]
    for i in range(3):
        for j in range(5):
            score = 0
            for k in range(3):
                for m in range(3):
                    row, column = i + k - 1, j + m - 1
                    if 0 <= row < 3 and 0 <= column < 5:
                        seen = u[:, row, column]
                        score = score + taps[0, k, m] * seen.max() + taps[1, k, m] * seen.mean()
            score = (score - 0.3) / (2.0 + module.locate[1].eps) ** 0.5
            torch.testing.assert_close(y[:, i, j], u[:, i, j] * score.sigmoid())


def test_a_silent_channel_has_a_gradient():
    module = CBAM(16, pools=["lp"])
    x = torch.zeros(2, 16, 3, 3, requires_grad=True)
    module(x).sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [{"reduction": 0}, {"reduction": 64}, {"pools": []}, {"pools": ["avg", "min"]}, {"kernel": 6}],
)
def test_refuses_options_that_make_no_gate(options):
    with pytest.raises(UserError, match=next(iter(options))):
        CBAM(32, **options)
