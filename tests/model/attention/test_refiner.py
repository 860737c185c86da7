"""Refiner against the authors' numbers and against its equations."""

import pytest
import torch
from einops import rearrange
from golden import configurations, read

from catnet.errors import UserError
from catnet.model.attention.refiner import DistributedLocalAttention, Refiner
from catnet.model.attention.refiner_block import RefinerBlock

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def files(module):
    return pytest.mark.parametrize("path", configurations(module), ids=lambda path: path.stem)


def close(ours, theirs, golden):
    torch.testing.assert_close(ours, theirs, atol=golden.tolerance(), rtol=0)


def expansion(ratio, mode):
    """Theirs: a ratio of 1 and the mode "conv" stand for one full convolution."""
    return None if mode == "conv" else ratio


def refiner(kwargs, *, share):
    options = {"expansion": 3, "kernel": 3}
    if not share:
        mode = kwargs.get("refine_mode", "conv_exapnd")
        options["expansion"] = expansion(kwargs.get("head_expand") or 3, mode)
        options["kernel"] = kwargs.get("kernel_size", 3)
    return Refiner(
        kwargs["dim"],
        heads=kwargs.get("num_heads", 8),
        refine=share or kwargs.get("apply_transform", False),
        share=share,
        bias=kwargs.get("qkv_bias", False),
        scale=kwargs.get("qk_scale"),
        **options,
    )


def check_attend(module, golden):
    """Their tokens as a map of one row; their two outputs."""
    module = module.to(golden.dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    x = rearrange(golden.inputs["x"], "b n c -> b c 1 n")
    with torch.no_grad():
        y, handed = module.attend(x, None, golden.inputs.get("atten"))
    close(rearrange(y, "b c 1 n -> b n c"), golden.outputs["y"], golden)
    close(handed, golden.outputs["attn_next"], golden)


@DTYPES
@files("refiner_attention")
def test_attention_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    check_attend(refiner(golden.kwargs, share=golden.kwargs.get("share_atten", False)), golden)


@DTYPES
@files("refiner_block")
def test_block_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    kwargs = golden.kwargs
    attention = refiner(kwargs, share=kwargs.get("share", False))
    eps = kwargs.get("norm_layer", {}).get("__ln_eps__", 1e-5)
    ratio = kwargs.get("mlp_ratio", 4.0)
    block = RefinerBlock(kwargs["dim"], attention=attention, mlp_ratio=ratio, eps=eps)
    check_attend(block, golden)


@DTYPES
@files("refiner_dla")
def test_local_attention_agrees_with_the_authors_code(path, dtype):
    golden = read(path, dtype)
    kwargs = golden.kwargs
    module = DistributedLocalAttention(
        kwargs["inp"],
        out_heads=kwargs["oup"],
        expansion=expansion(kwargs["expand_ratio"], kwargs["refine_mode"]),
        kernel=kwargs["kernel_size"],
    )
    module = module.to(dtype).eval()
    module.load_state_dict(module.convert(golden.params))
    with torch.no_grad():
        close(module(golden.inputs["x"]), golden.outputs["y"], golden)


def randomize_norms(module):
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module.double().eval()


def slow_norm(norm, value, channel):
    centered = value - norm.running_mean[channel]
    return centered / (norm.running_var[channel] + norm.eps) ** 0.5


def slow_refined(local, attention):
    """DLA, one map and one position at a time."""
    heads, rows, columns = attention.shape
    mix, back = local.expand[0].weight[:, :, 0, 0], local.reduce[0].weight[:, :, 0, 0]
    wide, convolved = [], []
    for e in range(len(mix)):
        plane = sum(mix[e, a] * attention[a] for a in range(heads))
        wide.append(slow_norm(local.expand[1], plane, e).clamp(0, 6))
    for e, plane in enumerate(wide):
        out = torch.zeros_like(plane)
        for i in range(rows):
            for j in range(columns):
                for k in range(3):
                    for m in range(3):
                        if 0 <= i + k - 1 < rows and 0 <= j + m - 1 < columns:
                            tap = local.local[0].weight[e, 0, k, m]
                            out[i, j] += tap * plane[i + k - 1, j + m - 1]
        convolved.append(slow_norm(local.local[1], out, e).clamp(0, 6))
    return [
        attention[a]
        + slow_norm(local.reduce[1], sum(back[a, e] * convolved[e] for e in range(len(mix))), a)
        for a in range(heads)
    ]


@torch.no_grad()
def test_is_the_equations():
    torch.manual_seed(0)
    module = randomize_norms(Refiner(6, heads=2, expansion=2, bias=True))
    x, context = torch.randn(1, 6, 3, 2).double(), torch.randn(1, 6, 1, 5).double()
    previous = torch.rand(1, 2, 6, 5).double()
    y, handed = module.attend(x, context, previous)
    queries, seen = x[0].flatten(1).T, context[0].flatten(1).T
    query, key, value = module.query(queries), module.key(seen), module.value(seen)
    maps = torch.zeros(2, 6, 5).double()
    for a in range(2):
        own = slice(3 * a, 3 * a + 3)
        for n in range(6):
            logits = torch.stack([query[n, own] @ key[m, own] / 3**0.5 for m in range(5)])
            maps[a, n] = logits.softmax(0) + previous[0, a, n] / 3**0.5
    local, norm = module.refine
    refined = slow_refined(local, maps)
    refined = [slow_norm(norm, plane, a) for a, plane in enumerate(refined)]
    torch.testing.assert_close(handed[0], torch.stack(refined))
    for n in range(6):
        found = [
            sum(refined[a][n, m] * value[m, 3 * a : 3 * a + 3] for m in range(5)) for a in range(2)
        ]
        torch.testing.assert_close(y[0, :, n // 2, n % 2], module.project(torch.cat(found)))


def test_without_refinement_it_is_multi_head_attention():
    torch.manual_seed(0)
    module = Refiner(8, heads=2, refine=False).double()
    x, context = torch.randn(2, 8, 3, 5).double(), torch.randn(2, 8, 2, 3).double()
    reference = torch.nn.MultiheadAttention(8, 2, bias=True, batch_first=True).double()
    weights = torch.cat([module.query.weight, module.key.weight, module.value.weight])
    reference.load_state_dict(
        {
            "in_proj_weight": weights,
            "in_proj_bias": torch.zeros(24).double(),
            "out_proj.weight": module.project.weight,
            "out_proj.bias": module.project.bias,
        }
    )
    tokens = [rearrange(part, "b c h w -> b (h w) c") for part in (x, context, context)]
    expected = rearrange(reference(*tokens)[0], "b (h w) c -> b c h w", h=3)
    torch.testing.assert_close(module(x, context), expected)
    sums = module.attention_map(x, context).sum(-1)
    torch.testing.assert_close(sums, torch.ones(2, 2, 15).double())


def test_the_handed_map_reaches_the_next_round():
    torch.manual_seed(0)
    first, second = Refiner(8, heads=2), Refiner(8, heads=2, share=True)
    x = torch.randn(1, 8, 3, 4)
    y, handed = first.attend(x)
    z, onward = second.attend(y, x, handed)
    assert onward is handed
    z.square().sum().backward()
    assert first.query.weight.grad.abs().sum() > 0


def test_share_refines_and_scales_the_map_it_is_given():
    torch.manual_seed(0)
    module = Refiner(8, heads=2, share=True).eval()
    x, context, previous = torch.randn(1, 8, 2, 3), torch.randn(1, 8, 1, 4), torch.rand(1, 2, 6, 4)
    local, norm = module.refine
    mixed = norm(local(previous)) / 2
    value = rearrange(module.value(context[0].flatten(1).T), "m (a d) -> a m d", a=2)
    found = module.project(rearrange(mixed[0] @ value, "a n d -> n (a d)"))
    torch.testing.assert_close(module.attend(x, context, previous)[0][0].flatten(1).T, found)


def test_share_honors_its_expansion_and_kernel():
    module = Refiner(8, heads=2, share=True, expansion=2, kernel=5)
    assert module.refine[0].local[0].weight.shape == (4, 1, 5, 5)


def test_block_norms_the_context_as_itself():
    torch.manual_seed(0)
    block = RefinerBlock(8, attention=Refiner(8, heads=2)).eval()
    x = torch.randn(1, 8, 3, 4)
    torch.testing.assert_close(block(x), block(x, x), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"heads": 5}, "heads"),
        ({"heads": 0}, "heads"),
        ({"expansion": 0}, "expansion"),
        ({"kernel": 0}, "kernel"),
        ({"share": True, "refine": False}, "share"),
    ],
)
def test_refuses_bad_options(options, word):
    with pytest.raises(UserError, match=word):
        Refiner(32, **options)


def test_refuses_maps_that_do_not_fit():
    x = torch.randn(1, 8, 2, 3)
    with pytest.raises(UserError, match="earlier round"):
        Refiner(8, heads=2, share=True)(x)
    with pytest.raises(UserError, match="previous map"):
        Refiner(8, heads=2).attend(x, None, torch.rand(1, 2, 6, 5))
