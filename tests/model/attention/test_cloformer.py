"""CloFormer: the authors' numbers, the equations written slowly, cells at the border."""

import pytest
import torch
from einops import rearrange
from golden import configurations, read
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.cloformer import AttnConv, CloAttention, PooledAttention
from catnet.model.attention.cloformer_block import CloBlock
from catnet.model.ffn import ConvFFN


def cases(module):
    """Every golden file of a module, in both precisions; a visible skip where there is none."""
    found = [
        pytest.param(path, dtype, id=f"{path.stem}-{str(dtype)[6:]}")
        for path in configurations(module)
        for dtype in (torch.float64, torch.float32)
    ]
    absent = pytest.mark.skip(reason=f"no golden vectors of {module}")
    return found or [pytest.param(None, None, marks=absent)]


def build_attention(kwargs):
    return CloAttention(
        kwargs["dim"],
        heads=kwargs["num_heads"],
        group_split=kwargs["group_split"],
        kernels=kwargs["kernel_sizes"],
        window=kwargs["window_size"],
        qkv_bias=kwargs.get("qkv_bias", True),
    )


def build_block(kwargs):
    return CloBlock(
        kwargs["dim"],
        attention=build_attention(kwargs),
        ratio=kwargs["mlp_ratio"],
        kernel=kwargs["mlp_kernel_size"],
        stride=kwargs.get("stride", 1),
        out_dim=kwargs["out_dim"],
    )


def build_ffn(kwargs):
    return ConvFFN(
        kwargs["in_channels"],
        ratio=kwargs["hidden_channels"] / kwargs["in_channels"],
        kernel=kwargs["kernel_size"],
        stride=kwargs["stride"],
        out_dim=kwargs["out_channels"],
    )


@torch.no_grad()
def agree(path, dtype, build):
    golden = read(path, dtype)
    module = build(golden.kwargs)
    module.load_state_dict(type(module).convert(golden.params), strict=True)
    ours = module.to(dtype).eval()(golden.inputs["x"])
    assert ours.shape == golden.outputs["y"].shape
    assert (ours - golden.outputs["y"]).abs().max() <= golden.tolerance()


@pytest.mark.parametrize(("path", "dtype"), cases("cloformer_attention"))
def test_attention_is_the_authors(path, dtype):
    agree(path, dtype, build_attention)


@pytest.mark.parametrize(("path", "dtype"), cases("cloformer_convffn"))
def test_feed_forward_is_the_authors(path, dtype):
    agree(path, dtype, build_ffn)


@pytest.mark.parametrize(("path", "dtype"), cases("cloformer_block"))
def test_block_is_the_authors(path, dtype):
    agree(path, dtype, build_block)


def slow_depthwise(layers, x, place):
    """One position of a 1x1 convolution followed by a depthwise one, zeros off the map."""
    pointwise, depthwise = layers
    kernel = depthwise.weight.shape[-1]
    total = depthwise.bias.clone()
    for i in range(kernel):
        for j in range(kernel):
            row, column = place[0] + i - kernel // 2, place[1] + j - kernel // 2
            if 0 <= row < x.shape[-2] and 0 <= column < x.shape[-1]:
                mapped = pointwise.weight[:, :, 0, 0] @ x[:, row, column] + pointwise.bias
                total = total + depthwise.weight[:, 0, i, j] * mapped
    return total


def linear(layer, vector):
    return layer.weight[:, :, 0, 0] @ vector + layer.bias


@torch.no_grad()
def test_local_branch_is_the_slow_equation(generator):
    module = AttnConv(6, heads=2, width=3, kernel=3, qkv_bias=True).double()
    x, context = torch.randn(2, 6, 3, 5, generator=generator, dtype=torch.float64)
    ours = module(x[None], context[None])[0]
    for place in [(h, w) for h in range(3) for w in range(5)]:
        product = slow_depthwise(module.query, x, place) * slow_depthwise(
            module.key, context, place
        )
        hidden = linear(module.gate[0], product)
        gate = torch.tanh(linear(module.gate[2], hidden * hidden.sigmoid()) / 3**0.5)
        expected = gate * slow_depthwise(module.value, context, place)
        torch.testing.assert_close(ours[:, place[0], place[1]], expected, atol=1e-9, rtol=0)


@torch.no_grad()
def test_global_branch_is_the_slow_equation(generator):
    """Cells of 2 x 2 on a context of 3 x 5: those at the border average two positions or one."""
    module = PooledAttention(6, heads=2, width=3, window=2, qkv_bias=True).double()
    x = torch.randn(6, 4, 3, generator=generator, dtype=torch.float64)
    context = torch.randn(6, 3, 5, generator=generator, dtype=torch.float64)
    ours = module(x[None], context[None])[0]
    cells = [
        context[:, top : top + 2, left : left + 2].flatten(1).mean(dim=1)
        for top in (0, 2)
        for left in (0, 2, 4)
    ]
    keys, values = zip(*(linear(module.key_value, cell).chunk(2) for cell in cells), strict=True)
    for place in [(h, w) for h in range(4) for w in range(3)]:
        query = linear(module.query, x[:, place[0], place[1]])
        for head in (slice(0, 3), slice(3, 6)):
            logits = torch.stack([query[head] @ key[head] / 3**0.5 for key in keys])
            expected = logits.softmax(dim=0) @ torch.stack([value[head] for value in values])
            torch.testing.assert_close(ours[head, place[0], place[1]], expected, atol=1e-9, rtol=0)


@torch.no_grad()
def test_context_enters_every_branch_in_its_own_size(generator):
    """Far: as it is. Near: resized to `x`."""
    module = CloAttention(16, heads=4, group_split=(1, 1, 2), kernels=(3, 5), window=3)
    x = torch.randn(2, 16, 7, 5, generator=generator)
    context = torch.randn(2, 16, 4, 9, generator=generator)
    near = F.interpolate(context, (7, 5), mode="bilinear")
    branches = [branch(x, near) for branch in module.local_branches]
    branches.append(module.global_branch(x, context))
    torch.testing.assert_close(module.project(torch.cat(branches, dim=1)), module(x, context))
    assert torch.equal(module(x), module(x, x))


@torch.no_grad()
def test_attention_map_weighs_the_values(generator):
    module = CloAttention(16, heads=4, group_split=(0, 4), kernels=(3,), window=3).double()
    x = torch.randn(1, 16, 2, 5, generator=generator, dtype=torch.float64)
    context = torch.randn(1, 16, 4, 7, generator=generator, dtype=torch.float64)
    weights = module.attention_map(x, context)
    assert weights.shape == (1, 4, 10, 28)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(1, 4, 10, dtype=x.dtype))
    _, value = module.global_branch.key_value(context).chunk(2, dim=1)
    value = rearrange(value, "b (heads d) h w -> b heads (h w) d", heads=4)
    mixed = rearrange(weights @ value, "b heads (h w) d -> b (heads d) h w", h=2)
    torch.testing.assert_close(module.project(mixed), module(x, context))


@torch.no_grad()
@pytest.mark.parametrize("split", [(4, 0, 0), (0, 4, 0), (0, 0, 4), (0, 2, 2)])
def test_a_branch_may_have_no_head(split, generator):
    module = CloAttention(16, heads=4, group_split=split, kernels=(3, 5), window=8)
    x = torch.randn(2, 16, 3, 5, generator=generator)
    assert module(x).shape == x.shape
    assert module.attention_map(x).shape == (2, split[-1], 15, 15)
    assert len(module.local_branches) == sum(part > 0 for part in split[:-1])


@torch.no_grad()
def test_block_takes_a_context_and_strides(generator):
    attention = CloAttention(16, heads=4, group_split=(2, 2), kernels=(3,))
    block = CloBlock(16, attention=attention, stride=2, out_dim=24).eval()
    x = torch.randn(2, 16, 7, 5, generator=generator)
    context = torch.randn(2, 16, 4, 9, generator=generator)
    assert block(x, context).shape == (2, 24, 4, 3)
    assert torch.equal(block(x), block(x, x))
    assert not torch.allclose(block(x), block(x, x.flip(-1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "heads=3 does not divide dim=16"),
        ({"group_split": (4, 3)}, "must share out heads=8"),
        ({"group_split": (9, -1)}, "must share out heads=8"),
        ({"group_split": (4, 2, 2)}, "3 entries for 1 kernels"),
        ({"kernels": (4,)}, "kernel 4 of kernels has no center"),
        ({"window": 0}, "window=0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        CloAttention(16, **options)


def test_only_a_stride_changes_the_channels():
    with pytest.raises(UserError, match="out_dim=24 must be dim=16"):
        CloBlock(16, attention=CloAttention(16), out_dim=24)
