"""Change of contrast by a power of the grey levels, after Ouyang et al., arXiv 2007.09886.

    y = min + (max - min) * ((x - min) / (max - min)) ^ gamma

min and max are those of the slice, so both stay where they are; mean and spread move.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from catnet.types import Features


def adjust_gamma(images: Features, gamma: Float[Tensor, " b"]) -> Features:
    """Raise grey levels to `gamma`, one exponent an episode, min and max of every channel its own.

    `images` is (b, c, h, w) of any range, c are slices. A constant slice, or an exponent of one,
    changes no bit.
    """
    exponent = rearrange(gamma, "b -> b 1 1 1")
    low, high = (edge(dim=(-2, -1), keepdim=True) for edge in (images.amin, images.amax))
    spread = high - low
    tiny = torch.finfo(images.dtype).tiny
    level = (images - low).div_(spread.clamp_min(tiny)).clamp_min_(tiny)
    bent = level.log2().mul_(exponent).exp2_()  # a power in a third of its time, but not of zero
    return bent.sub_(level).mul_(spread * (exponent != 1)).add_(images)
