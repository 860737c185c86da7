"""GRL's mechanism and block: the authors' numbers, what each option does, bad options."""

import pytest
import torch
from einops import rearrange
from golden import read
from golden_stripe import (
    agree,
    build_block,
    build_channel_attention,
    build_mixed,
    cases,
    load,
    size,
    to_map,
)
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.stripe import StripeAttention
from catnet.model.attention.stripe_block import ChannelAttentionBlock, GRLBlock


@torch.no_grad()
@pytest.mark.parametrize(("path", "dtype"), cases("grl_mixed_attention", "grl_block", "grl_cab"))
def test_mechanism_and_block_are_the_authors(path, dtype):
    golden = read(path, dtype)
    build = {
        "grl_mixed_attention": build_mixed,
        "grl_block": build_block,
        "grl_cab": build_channel_attention,
    }[path.parent.name]
    x = to_map(golden.inputs["x"], size(golden)[0])
    agree(load(build(golden), golden)(x), golden)


@pytest.fixture
def small(generator):
    """A mechanism with two kinds of shift, and a map that no tile divides."""
    torch.manual_seed(0)
    module = StripeAttention(
        16,
        window=4,
        window_shift=True,
        stripe=(6, None),
        groups=(None, 2),
        stripe_shift=True,
        anchor_down=2,
    )
    return module.double(), torch.randn(2, 16, 9, 11, generator=generator, dtype=torch.float64)


@torch.no_grad()
def test_no_weight_goes_to_padding(small):
    """The map lists real positions only, so that a weight on padding would be missing here."""
    module, x = small
    weights = module.attention_map(x)
    assert weights.shape == (2, 8, 99, 99)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 8, 99, dtype=x.dtype))


@torch.no_grad()
def test_attention_map_weighs_the_values(small, generator):
    module, x = small
    context = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    weights = module.attention_map(x, context)
    _, _, value = module.project_in(x, context)
    value = rearrange(value, "half b (heads d) h w -> b (half heads) (h w) d", heads=4)
    mixed = rearrange(weights @ value, "b heads (h w) d -> b (heads d) h w", h=9)
    torch.testing.assert_close(module.project(mixed), module(x, context))


@torch.no_grad()
def test_vertical_stripes_are_horizontal_ones_of_the_transposed_map(generator):
    """On a map that is not square, where the authors' tables do not fit their stripes."""
    options = {"stripe": (4, None), "groups": (None, 2), "stripe_shift": True, "anchor_down": 2}
    lying = StripeAttention(16, window=4, **options).eval()
    standing = StripeAttention(16, window=4, orientation="vertical", **options).eval()
    standing.load_state_dict(
        {  # relative positions are (row, column): their order turns with the map
            name: tensor.flip(-1) if name.endswith("bias.0.weight") else tensor
            for name, tensor in lying.state_dict().items()
        }
    )
    x = torch.randn(1, 16, 7, 13, generator=generator)
    turned = rearrange(standing(x), "b c h w -> b c w h")
    torch.testing.assert_close(turned, lying(rearrange(x, "b c h w -> b c w h")))


@torch.no_grad()
def test_a_context_of_another_size_is_resized(small, generator):
    module, x = small
    context = torch.randn(2, 16, 5, 20, generator=generator, dtype=x.dtype)
    resized = F.interpolate(context, (9, 11), mode="bilinear")
    assert torch.equal(module(x, context), module(x, resized))
    assert torch.equal(module(x), module(x, x))


@torch.no_grad()
@pytest.mark.parametrize("kind", ["avgpool", "maxpool", "conv2d", "separable_conv", "patchmerging"])
def test_every_anchor_serves_every_size(kind, generator):
    module = StripeAttention(16, anchor=kind, anchor_down=2)
    for height, width in ((1, 1), (2, 5), (9, 7), (16, 8)):
        x = torch.randn(1, 16, height, width, generator=generator)
        assert module.anchor(x).shape[-2:] == (-(-height // 2), -(-width // 2))
        assert module(x).isfinite().all()


def test_average_anchors_at_the_border_average_what_is_there():
    module = StripeAttention(4, window_heads=1, stripe_heads=1, anchor_down=2)
    x = torch.ones(1, 4, 3, 5)
    anchor = module.anchor(x)
    torch.testing.assert_close(anchor, anchor[..., :1, :1].expand_as(anchor))


@torch.no_grad()
def test_output_convolution_and_distance_are_options(generator):
    x = torch.randn(1, 16, 8, 8, generator=generator)
    assert StripeAttention(16, output="conv2d").project.kernel_size == (3, 3)
    torch.manual_seed(0)
    near = StripeAttention(16, output="conv2d")
    torch.manual_seed(0)
    far = StripeAttention(16, output="conv2d", distance="euclidean")
    assert not torch.allclose(near(x), far(x))


@torch.no_grad()
def test_block_keeps_the_residual_where_the_scale_is_zero(generator):
    attention = StripeAttention(16)
    block = GRLBlock(16, attention=attention, local_connection=False, residual_scale=0.0)
    x = torch.randn(1, 16, 6, 7, generator=generator)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dim": 15}, "dim=15 must be even"),
        ({"window_heads": 3}, "window_heads.*heads=3 does not divide dim=8"),
        ({"stripe_heads": 5}, "stripe_heads.*heads=5 does not divide dim=8"),
        ({"window": 0}, "window=0"),
        ({"stripe": (6, None)}, "stripe of 6 rows is no multiple of anchor_down=4"),
        ({"stripe": (8, 8)}, "for columns give either"),
        ({"groups": (None, None)}, "for columns give either"),
        ({"groups": (None, 0)}, "groups of columns is 0"),
        ({"stripe": (8,)}, "two entries"),
        ({"anchor_down": 1}, "anchor_down=1 must be at least 2"),
        ({"anchor_down": 3, "anchor": "conv2d", "stripe": (9, None)}, "even anchor_down"),
        ({"anchor": "patchmerging"}, "needs anchor_down=2, not 4"),
        ({"anchor": "minpool"}, "anchor='minpool' is unknown"),
        ({"projection": "conv"}, "projection='conv' is unknown"),
        ({"distance": "manhattan"}, "distance='manhattan' is unknown"),
        ({"orientation": "diagonal"}, "orientation='diagonal' is unknown"),
        ({"output": "none"}, "output='none' is unknown"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=message):
        StripeAttention(options.pop("dim", 16), **options)


def test_channel_attention_needs_a_channel_to_squeeze_to():
    with pytest.raises(UserError, match="reduction=18 must be from 1 to dim=16"):
        ChannelAttentionBlock(16)


@torch.no_grad()
def test_without_activation_a_separable_convolution_is_linear_and_takes_both_ways_of_names(
    generator,
):
    """The authors' `separable_conv_act`: with a GELU the last layer is number 2, without it 1."""
    options = {"anchor": "separable_conv", "projection": "separable_conv", "anchor_down": 2}
    torch.manual_seed(0)
    plain = StripeAttention(16, **options, activation=False).double()
    curved = StripeAttention(16, **options).double()
    curved.load_state_dict(plain.state_dict())
    x = torch.randn(1, 16, 8, 8, generator=generator, dtype=torch.float64)
    for module, linear in ((plain, True), (curved, False)):
        for part in (module.local, module.anchor):
            constant = part(torch.zeros_like(x))
            doubled = part(2 * x) - constant
            assert torch.allclose(doubled, 2 * (part(x) - constant)) == linear
    theirs = {}
    for name, tensor in plain.state_dict().items():
        for ours, other in (("local.0", "qkv.body.0"), ("anchor.body.0", "anchor.body.0.0")):
            if name.startswith(f"{ours}."):
                theirs[name.replace(ours, other, 1)] = tensor
    last = torch.randn(8, 16, 1, 1, generator=generator, dtype=torch.float64)
    for number in (1, 2):
        names = {f"anchor.body.0.{number}.weight": last}
        converted = StripeAttention.convert(theirs | names)
        assert torch.equal(converted["anchor.body.2.weight"], last)
        assert torch.equal(converted["local.0.weight"], plain.local[0].weight)


@pytest.mark.parametrize("shift", [False, True])
@torch.no_grad()
def test_a_tile_larger_than_the_map_is_the_map(shift, generator):
    x = torch.randn(1, 16, 8, 8, generator=generator, dtype=torch.float64)
    outputs = []
    for window, stripe, moved in (
        (8, (8, 8), False),
        (9, (12, 12), shift),
        (10**6, (10**8,) * 2, shift),
    ):
        torch.manual_seed(0)
        module = StripeAttention(
            16,
            window=window,
            window_shift=moved,
            stripe=stripe,
            groups=(None, None),
            stripe_shift=moved,
        )
        outputs.append(module.double()(x))
    for output in outputs[1:]:
        torch.testing.assert_close(output, outputs[0])


@torch.no_grad()
def test_zeros_and_padding_are_finite_in_half_precision(generator):
    module = StripeAttention(16).half()
    x = torch.randn(1, 16, 5, 7, generator=generator).half()
    x[..., :2, :] = 0
    for one in (x, torch.zeros_like(x)):
        assert module(one).isfinite().all()
        assert module.attention_map(one).isfinite().all()
