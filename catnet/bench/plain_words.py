"""Plain reference: the words that the plain network speaks in, for one episode and one shot."""

import math

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SMALL = 1e-5  # keeps quotients finite


def share_of_tokens(
    mask: Float[Tensor, "H W"], *, like: Float[Tensor, "1 c h w"]
) -> Float[Tensor, "h w"]:
    """The part of every token that the mask covers."""
    return F.adaptive_avg_pool2d(mask[None], like.shape[-2:])[0]


def average(feature: Float[Tensor, "1 c h w"], share: Float[Tensor, "h w"]) -> Float[Tensor, " c"]:
    """The mean feature over the foreground."""
    return (feature[0] * share).sum(dim=(1, 2)) / (share.sum() + SMALL)


def cosine_score(
    feature: Float[Tensor, "1 c h w"], prototype: Float[Tensor, " c"]
) -> Float[Tensor, "h w"]:
    """20 times the cosine of every position with a prototype."""
    return 20 * F.cosine_similarity(feature[0], prototype[:, None, None], dim=0, eps=SMALL)


def minmax(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Scaled to [0, 1]."""
    return (values - values.min()) / (values.max() - values.min() + SMALL)


def normed(norm: nn.LayerNorm, x: Float[Tensor, "1 c h w"]) -> Float[Tensor, "1 c h w"]:
    """Layer normalization over the channels of every position."""
    last = rearrange(x, "1 c h w -> 1 h w c")
    last = F.layer_norm(last, norm.normalized_shape, norm.weight, norm.bias)
    return rearrange(last, "1 h w c -> 1 c h w")


def sine_position(like: Float[Tensor, "1 c h w"]) -> Float[Tensor, "c h w"]:
    """Half of the channels encode the row, half the column, each by sines, then cosines."""
    _, channels, height, width = like.shape
    count = channels // 4
    frequency = 2 * math.pi / 10000 ** (torch.arange(count) / count)

    def encode(length: int) -> Tensor:
        angle = torch.outer(torch.arange(1, length + 1) / length, frequency)
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    rows = repeat(encode(height), "h c -> c h w", w=width)
    columns = repeat(encode(width), "w c -> c h w", h=height)
    return torch.cat([rows, columns]).to(like)
