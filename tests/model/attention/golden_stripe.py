"""GRL's golden files: our modules, built from what the authors' constructors were given."""

import pytest
import torch
from einops import rearrange
from golden import configurations

from catnet.model.attention.stripe import StripeAttention
from catnet.model.attention.stripe_block import ChannelAttentionBlock, GRLBlock
from catnet.model.attention.stripe_window import AnchoredStripeAttention, WindowAttention


def cases(*modules, dtypes=(torch.float64, torch.float32)):
    """Every golden file of the modules in each precision; a visible skip where there is none."""
    found = [
        pytest.param(path, dtype, id=f"{path.parent.name}-{path.stem}-{str(dtype)[6:]}")
        for module in modules
        for path in configurations(module)
        for dtype in dtypes
    ]
    absent = pytest.mark.skip(reason=f"no golden vectors of {', '.join(modules)}")
    return found or [pytest.param(None, None, marks=absent)]


def distance(golden):
    return "euclidean" if golden.kwargs["args"]["__ns__"]["euclidean_dist"] else "cosine"


def window_size(golden):
    side, other = golden.kwargs["window_size"]["__tuple__"]
    if side != other:
        pytest.skip(f"a window of {side} x {other}: ours are square")
    return side


def activation(golden):
    return golden.kwargs["args"]["__ns__"].get("separable_conv_act", True)


def size(golden):
    """Rows and columns of the map: the one tuple among the arguments of the authors' forward."""
    (pair,) = (a["__tuple__"] for a in golden.meta["forward"] if "__tuple__" in (a or ()))
    return tuple(pair)


def load(module, golden):
    module.load_state_dict(type(module).convert(golden.params), strict=True)
    return module.to(golden.dtype).eval()


def to_map(tokens, rows):
    return rearrange(tokens, "b (h w) c -> b c h w", h=rows)


def agree(ours, golden):
    theirs = to_map(golden.outputs["y"], ours.shape[-2])
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= golden.tolerance(double=1e-5)


def build_window(golden):
    return WindowAttention(
        golden.kwargs["num_heads"],
        window=window_size(golden),
        shift=golden.kwargs["window_shift"],
        distance=distance(golden),
    )


def build_stripe(golden):
    return AnchoredStripeAttention(
        golden.kwargs["num_heads"],
        stripe=golden.kwargs["stripe_size"],
        groups=golden.kwargs["stripe_groups"],
        shift=golden.kwargs["stripe_shift"],
        down=golden.kwargs["anchor_window_down_factor"],
        distance=distance(golden),
    )


def build_mixed(golden):
    kwargs = golden.kwargs
    return StripeAttention(
        kwargs["dim"],
        window_heads=kwargs["num_heads_w"],
        stripe_heads=kwargs["num_heads_s"],
        window=window_size(golden),
        window_shift=kwargs["window_shift"],
        stripe=kwargs["stripe_size"],
        groups=kwargs["stripe_groups"],
        stripe_shift=kwargs["stripe_shift"],
        orientation={"H": "horizontal", "W": "vertical"}[kwargs.get("stripe_type", "H")],
        anchor=kwargs.get("anchor_proj_type", "separable_conv"),
        anchor_down=kwargs.get("anchor_window_down_factor", 1),
        projection=kwargs.get("qkv_proj_type", "linear"),
        activation=activation(golden),
        qkv_bias=kwargs.get("qkv_bias", True),
        distance=distance(golden),
    )


def build_block(golden):
    kwargs = golden.kwargs
    return GRLBlock(
        kwargs["dim"],
        attention=build_mixed(golden),
        mlp_ratio=kwargs["mlp_ratio"],
        local_connection=kwargs["args"]["__ns__"]["local_connection"],
        residual_scale=kwargs.get("res_scale", 1.0),
    )


def split_qkv(golden):
    return to_map(golden.inputs["qkv"], size(golden)[0]).chunk(3, dim=1)


def build_channel_attention(golden):
    return ChannelAttentionBlock(
        golden.kwargs["num_feat"],
        compress=golden.kwargs.get("compress_ratio", 4),
        reduction=golden.kwargs.get("reduction", 18),
    )
