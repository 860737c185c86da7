"""Both attentions of Twins against the authors' numbers and against their equations."""

import pytest
import torch
from golden import configurations, read
from twins_slowly import slow_grouped, slow_subsampled

from catnet.errors import UserError
from catnet.model.attention.twins import SpatiallySeparableAttention, TwinsBlock
from catnet.model.attention.twins_gsa import REDUCTIONS, GlobalSubsampledAttention
from catnet.model.attention.twins_lsa import LocallyGroupedAttention

both_precisions = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def cases(module):
    return pytest.mark.parametrize("path", configurations(module), ids=lambda path: path.stem)


def grouped(kwargs):
    return LocallyGroupedAttention(
        kwargs["dim"],
        heads=kwargs["num_heads"],
        window=kwargs["ws"],
        qkv_bias=kwargs.get("qkv_bias", False),
        scale=kwargs.get("qk_scale"),
    )


def subsampled(kwargs):
    return GlobalSubsampledAttention(
        kwargs["dim"],
        heads=kwargs["num_heads"],
        ratio=kwargs.get("sr_ratio", 1),
        qkv_bias=kwargs.get("qkv_bias", False),
        scale=kwargs.get("qk_scale"),
    )


def block(kwargs):
    mechanism = grouped if kwargs.get("ws", 1) > 1 else subsampled
    return TwinsBlock(
        kwargs["dim"],
        attention=mechanism(kwargs),
        mlp_ratio=kwargs.get("mlp_ratio", 4.0),
        eps=kwargs.get("norm_layer", {}).get("__ln_eps__", 1e-5),
    )


def load(module, golden):
    module = module.to(golden.dtype).eval()
    module.load_state_dict(module.convert(golden.params), strict=True)
    return module


def as_map(tokens, golden):
    return tokens.mT.unflatten(-1, tuple(golden.meta["forward"][1:3]))


def assert_parity(module, golden):
    with torch.no_grad():
        y = load(module, golden)(as_map(golden.inputs["x"], golden))
    expected = as_map(golden.outputs["y"], golden)
    torch.testing.assert_close(y, expected, atol=golden.tolerance(), rtol=0)


@both_precisions
@cases("twins_lsa")
def test_grouped_attention_gives_the_authors_numbers(path, dtype):
    golden = read(path, dtype)
    assert_parity(grouped(golden.kwargs), golden)


@both_precisions
@cases("twins_gsa")
def test_subsampled_attention_gives_the_authors_numbers(path, dtype):
    golden = read(path, dtype)
    assert_parity(subsampled(golden.kwargs), golden)


@both_precisions
@cases("twins_svt_block")
def test_block_gives_the_authors_numbers(path, dtype):
    golden = read(path, dtype)
    assert_parity(block(golden.kwargs), golden)


@both_precisions
@cases("twins_lsa_mask")
@torch.no_grad()
def test_padding_is_masked_as_by_the_authors_and_where_they_forget_to(path, dtype):
    """With padding on one side only the authors' last windows attend to it: theirs are wrong."""
    golden = read(path, dtype)
    module = load(grouped(golden.kwargs), golden)
    x, theirs = (as_map(part, golden) for part in (golden.inputs["x"], golden.outputs["y"]))
    (height, width), window = x.shape[-2:], module.window
    right = slice(None), slice(None), slice(None), slice(None)
    if (height % window == 0) != (width % window == 0):
        whole = slice(height // window * window), slice(width // window * window)
        right = slice(None), slice(None), *whole
    ours, tolerance = module(x), golden.tolerance()
    torch.testing.assert_close(ours[right], theirs[right], atol=tolerance, rtol=0)
    expected = slow_grouped(module, x, x)
    torch.testing.assert_close(ours, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(
    ("size", "window"),
    [((6, 9), 3), ((5, 7), 3), ((6, 4), 4), ((4, 6), 4), ((2, 3), 7), ((3, 9), 5), ((1, 1), 1)],
    ids=str,
)
@pytest.mark.parametrize("cross", [False, True])
@torch.no_grad()
def test_grouped_equals_attention_over_the_places_of_the_window(size, window, cross, generator):
    module = LocallyGroupedAttention(8, heads=2, window=window, scale=0.6).double()
    x, other = torch.randn(2, 2, 8, *size, dtype=torch.float64, generator=generator)
    context = other if cross else x
    expected = slow_grouped(module, x, context)
    torch.testing.assert_close(module(x, other if cross else None), expected)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("size", [(6, 5), (3, 7)], ids=str)
@torch.no_grad()
def test_subsampled_equals_attention_over_the_cells(reduce, ratio, size, generator):
    module = GlobalSubsampledAttention(8, heads=2, ratio=ratio, reduce=reduce).double()
    x = torch.randn(2, 8, 4, 5, dtype=torch.float64, generator=generator)
    context = torch.randn(2, 8, *size, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(module(x, context), slow_subsampled(module, x, context))
    torch.testing.assert_close(module(x), slow_subsampled(module, x, x))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@torch.no_grad()
def test_map_shorter_than_a_cell_repeats_its_border(reduce, generator):
    module = GlobalSubsampledAttention(8, heads=2, ratio=4, reduce=reduce).double()
    x = torch.randn(1, 8, 2, 5, dtype=torch.float64, generator=generator)
    extended = torch.cat([x, x[:, :, -1:], x[:, :, -1:]], dim=2)
    torch.testing.assert_close(module(x), module(x, extended))
    assert module(x[:, :, :1, :1]).isfinite().all()


@torch.no_grad()
def test_grouped_map_applied_to_the_values_is_the_output(generator):
    module = LocallyGroupedAttention(8, heads=2, window=3).double()
    x, context = torch.randn(2, 2, 8, 5, 7, dtype=torch.float64, generator=generator)
    value = module.key_value(context.flatten(2).mT)[..., 8:].unflatten(-1, (2, 4)).transpose(1, 2)
    mixed = (module.attention_map(x, context) @ value).transpose(1, 2).flatten(2)
    expected = module.project(mixed).mT.unflatten(-1, (5, 7))
    torch.testing.assert_close(module(x, context), expected)


@pytest.mark.parametrize("size", [(7, 9), (4, 8), (2, 9), (3, 3)], ids=str)
@torch.no_grad()
def test_subsampled_map_shares_a_cell_evenly(size, generator):
    module = GlobalSubsampledAttention(8, heads=2, ratio=4).double()
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64, generator=generator)
    context = torch.randn(1, 8, *size, dtype=torch.float64, generator=generator)
    weights = module.attention_map(x, context).unflatten(-1, size)
    torch.testing.assert_close(weights.sum(dim=(-2, -1)), torch.ones_like(weights[..., 0, 0]))
    height, width = (max(side // 4 * 4, min(side, 4)) for side in size)
    assert weights[..., height:, :].abs().sum() + weights[..., width:].abs().sum() == 0
    query, key, _ = module.projections(x, module.cells(context))
    first = (module.scale * query @ key.mT).softmax(dim=-1)[..., 0]
    torch.testing.assert_close(weights[..., :4, :4].sum(dim=(-2, -1)), first)
    corner = weights[..., :4, :4]
    torch.testing.assert_close(corner, corner[..., :1, :1].expand_as(corner))


@torch.no_grad()
def test_grouped_resizes_a_context_of_another_size(generator):
    module = LocallyGroupedAttention(8, heads=2, window=3)
    x = torch.randn(1, 8, 4, 6, generator=generator)
    resized = module(x, torch.ones(1, 8, 3, 9))
    torch.testing.assert_close(resized, module(x, torch.ones_like(x)))


@torch.no_grad()
def test_pair_is_two_residual_steps(generator):
    pair = SpatiallySeparableAttention(8, heads=2, window=3, ratio=2).double()
    x, context = torch.randn(2, 2, 8, 5, 7, dtype=torch.float64, generator=generator)

    def step(x, context):
        return x + slow_grouped(pair.near, pair.near_norm(x), pair.near_norm(context))

    def whole(x, context):
        near, other = step(x, context), step(context, context)
        return near + slow_subsampled(pair.far, pair.far_norm(near), pair.far_norm(other))

    torch.testing.assert_close(pair(x, context), whole(x, context))
    torch.testing.assert_close(pair(x), whole(x, x))
    assert torch.equal(pair(x), pair(x, x))


@torch.no_grad()
def test_pair_takes_the_weights_of_two_consecutive_blocks(generator):
    kwargs = {"dim": 8, "num_heads": 2, "qkv_bias": True}
    first, second = block(kwargs | {"ws": 3}), block(kwargs | {"sr_ratio": 2})
    state = authors(first, number=0) | authors(second, number=1)
    pair = SpatiallySeparableAttention(8, heads=2, window=3, ratio=2)
    pair.load_state_dict(pair.convert(state), strict=True)
    x = torch.randn(1, 8, 5, 7, generator=generator)
    near = x + first.attention(pair.near_norm(x))
    torch.testing.assert_close(pair(x), near + second.attention(pair.far_norm(near)))


def authors(ours, *, number):
    """A block's parameters under the authors' names, as in the stage's list of blocks."""
    names = {
        "attention_norm": "norm1",
        "feed_forward_norm": "norm2",
        "feed_forward.expand": "mlp.fc1",
        "feed_forward.reduce": "mlp.fc2",
        "attention.query": "attn.q",
        "attention.key_value": "attn.kv",
        "attention.project": "attn.proj",
        "attention.reduce": "attn.sr",
        "attention.norm": "attn.norm",
    }
    state = {}
    for name, tensor in ours.state_dict().items():
        layer, _, parameter = name.rpartition(".")
        matrix = names[layer].startswith("mlp.") and parameter == "weight"
        state[f"{number}.{names[layer]}.{parameter}"] = tensor.flatten(1) if matrix else tensor
    if number == 0:
        for parameter in ("weight", "bias"):
            parts = [state.pop(f"0.attn.{layer}.{parameter}") for layer in ("q", "kv")]
            state[f"0.attn.qkv.{parameter}"] = torch.cat(parts)
    return state


@pytest.mark.parametrize(
    ("mechanism", "settings", "message"),
    [
        (LocallyGroupedAttention, {"heads": 3}, "lsa: heads=3"),
        (LocallyGroupedAttention, {"window": 0}, "lsa: window=0"),
        (GlobalSubsampledAttention, {"heads": 3}, "gsa: heads=3"),
        (GlobalSubsampledAttention, {"ratio": 0}, "gsa: ratio=0"),
        (GlobalSubsampledAttention, {"reduce": "max"}, "gsa: reduce='max'.*average"),
        (SpatiallySeparableAttention, {"heads": 3}, "lsa: heads=3"),
        (SpatiallySeparableAttention, {"ratio": 0}, "gsa: ratio=0"),
    ],
)
def test_bad_option_is_named(mechanism, settings, message):
    with pytest.raises(UserError, match=message):
        mechanism(8, **settings)
