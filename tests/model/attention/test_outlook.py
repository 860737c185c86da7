"""VOLO's outlook attention against the authors' numbers and against its equation."""

import itertools

import pytest
import torch
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.outlook import OutlookAttention, Outlooker

both_precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def cases(module):
    return pytest.mark.parametrize("path", configurations(module), ids=lambda path: path.stem)


def options(kwargs):
    """Ours of theirs; a visible skip for what `outlook` refuses, and says so."""
    kernel, stride = kwargs.get("kernel_size", 3), kwargs.get("stride", 1)
    padding = kwargs.get("padding", 1)
    if kernel % 2 == 0 or padding != kernel // 2 or stride > kernel:
        pytest.skip(
            f"kernel={kernel}, padding={padding}, stride={stride}: ours has padding kernel // 2, "
            "an odd kernel and no gaps between windows (outlook.py): these fit maps of any size"
        )
    return {
        "heads": kwargs.get("num_heads", 1),
        "kernel": kernel,
        "stride": stride,
        "qkv_bias": kwargs.get("qkv_bias", False),
        "scale": kwargs.get("qk_scale"),
    }


def assert_parity(module, golden):
    module = module.to(golden.dtype).eval()
    module.load_state_dict(module.convert(golden.params), strict=True)
    with torch.no_grad():
        y = module(golden.inputs["x"].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    torch.testing.assert_close(y, golden.outputs["y"], atol=golden.tolerance(), rtol=0)


@both_precisions
@cases("volo_outlook_attention")
def test_attention_gives_the_authors_numbers(path, dtype):
    golden = read(path, dtype)
    assert_parity(OutlookAttention(golden.kwargs["dim"], **options(golden.kwargs)), golden)


@both_precisions
@cases("volo_outlooker")
def test_block_gives_the_authors_numbers(path, dtype):
    golden = read(path, dtype)
    block = Outlooker(
        golden.kwargs["dim"],
        **options(golden.kwargs),
        mlp_ratio=golden.kwargs.get("mlp_ratio", 3.0),
        eps=golden.kwargs.get("norm_layer", {}).get("__ln_eps__", 1e-5),
    )
    assert_parity(block, golden)


def slow(module, x, context):
    """One episode (c, h, w): every center hands out a mix of its window to each of its places."""
    channels, height, width = x.shape
    reach, stride, heads = module.kernel // 2, module.stride, module.heads
    places = list(itertools.product(range(-reach, reach + 1), repeat=2))
    value = torch.einsum("oc,chw->ohw", module.value.weight, context)
    if module.value.bias is not None:
        value = value + module.value.bias[:, None, None]
    total = torch.zeros_like(x)
    for row, column in itertools.product(range(0, height, stride), range(0, width, stride)):
        center = x[:, row : row + stride, column : column + stride].mean(dim=(1, 2))
        logits = module.weigh.weight @ center + module.weigh.bias
        logits = logits.reshape(heads, len(places), len(places)) * module.scale
        for head, (q, (down, right)) in itertools.product(range(heads), enumerate(places)):
            if not (0 <= row + down < height and 0 <= column + right < width):
                continue
            part = slice(head * channels // heads, (head + 1) * channels // heads)
            weights = torch.exp(logits[head, q]) / torch.exp(logits[head, q]).sum()
            for weight, (below, beside) in zip(weights, places, strict=True):
                if 0 <= row + below < height and 0 <= column + beside < width:
                    taken = weight * value[part, row + below, column + beside]
                    total[part, row + down, column + right] += taken
    return (
        torch.einsum("oc,chw->ohw", module.project.weight, total)
        + (module.project.bias[:, None, None])
    )


@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((3, 5), {"kernel": 3, "stride": 1}),
        ((5, 4), {"kernel": 3, "stride": 2, "qkv_bias": True, "scale": 0.7}),
        ((2, 4), {"kernel": 5, "stride": 3}),
        ((1, 1), {"kernel": 5, "stride": 5}),
    ],
)
@pytest.mark.parametrize("cross", [False, True])
@torch.no_grad()
def test_equals_the_equation_written_slowly(size, settings, cross, generator):
    module = OutlookAttention(8, heads=2, **settings).double()
    x, other = torch.randn(2, 1, 8, *size, dtype=torch.float64, generator=generator)
    context = other if cross else x
    expected = slow(module, x[0], context[0])
    torch.testing.assert_close(module(x, other if cross else None)[0], expected)


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({}, True),
        ({"kernel_size": 3, "padding": 1, "stride": 2}, True),
        ({"kernel_size": 1, "padding": 0, "stride": 1}, True),
        ({"kernel_size": 1, "padding": 0, "stride": 2}, False),
        ({"kernel_size": 2, "padding": 0, "stride": 2}, False),
        ({"kernel_size": 3, "padding": 0, "stride": 3}, False),
    ],
)
def test_what_ours_refuses_is_a_visible_skip_and_nothing_else_is(given, fits):
    if fits:
        assert options(given)["kernel"] == given.get("kernel_size", 3)
        return
    with pytest.raises(pytest.skip.Exception, match="ours has padding kernel // 2"):
        options(given)


@pytest.mark.parametrize("reached", [5])
@torch.no_grad()
def test_the_default_sees_five_rows_and_columns_for_its_windows_overlap(reached, generator):
    module = OutlookAttention(8, heads=2).double()
    x = torch.randn(1, 8, 9, 9, dtype=torch.float64, generator=generator)
    seen = module.attention_map(x)[0].sum(dim=0)[4 * 9 + 4].reshape(9, 9) > 0
    assert seen[2:7, 2:7].all()
    assert seen.sum() == reached**2


@pytest.mark.parametrize("stride", [1, 2, 3])
@torch.no_grad()
def test_attention_map_applied_to_the_values_is_the_output(stride, generator):
    module = OutlookAttention(8, heads=2, stride=stride).double()
    x, context = torch.randn(2, 2, 8, 5, 6, dtype=torch.float64, generator=generator)
    value = module.value(context.flatten(2).mT).unflatten(-1, (2, 4)).transpose(1, 2)
    mixed = (module.attention_map(x, context) @ value).transpose(1, 2).flatten(2)
    expected = module.project(mixed).mT.unflatten(-1, (5, 6))
    torch.testing.assert_close(module(x, context), expected)


@torch.no_grad()
def test_context_of_another_size_is_resized(generator):
    module = OutlookAttention(8, heads=2)
    x = torch.randn(1, 8, 4, 6, generator=generator)
    context = torch.ones(1, 8, 3, 9)
    torch.testing.assert_close(module(x, context), module(x, torch.ones_like(x)))


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        ({"heads": 3}, "heads=3"),
        ({"heads": 0}, "heads=0"),
        ({"kernel": 2}, "kernel=2"),
        ({"kernel": -1}, "kernel=-1"),
        ({"stride": 0}, "stride=0"),
        ({"stride": 4}, "stride=4"),
    ],
)
def test_bad_option_is_named(settings, option):
    with pytest.raises(UserError, match=f"outlook: {option}"):
        OutlookAttention(8, **settings)


def test_block_without_hidden_channels_is_refused():
    with pytest.raises(UserError, match="ratio=0"):
        Outlooker(8, mlp_ratio=0.0)
