"""Positional encodings that are added to both streams before the first round.

Sine: "Attention Is All You Need", Vaswani et al., 2017, arXiv 1706.03762, in two dimensions as in
DETR, Carion et al., 2020, arXiv 2005.12872: half of the channels encode the row, half the column,

    PE(p, i) = sin(2 pi p / T^(2i / d)),  PE(p, d/2 + i) = cos(2 pi p / T^(2i / d)),  i < d/2,

for a place p in (0, 1] along an axis, which d channels encode.
"""

import math

import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from catnet.errors import UserError
from catnet.types import Features


class SinePosition(nn.Module):
    """Adds a fixed encoding of row and column; works for any height and width."""

    def __init__(self, dim: int, *, temperature: float = 10000.0) -> None:
        super().__init__()
        if dim % 4:
            raise UserError(f"position: sine needs dim divisible by 4, not {dim}; change model.dim")
        exponent = torch.arange(dim // 4) / (dim // 4)
        self.register_buffer("frequency", 2 * math.pi / temperature**exponent, persistent=False)

    def forward(self, x: Features) -> Features:
        """The map plus its encoding."""
        height, width = x.shape[-2:]
        rows = repeat(self.encode(height), "h c -> c h w", w=width)
        columns = repeat(self.encode(width), "w c -> c h w", h=height)
        return x + torch.cat([rows, columns]).to(x.dtype)

    def encode(self, length: int) -> Tensor:
        """(length, dim / 2) encoding of the positions along one axis."""
        place = torch.arange(1, length + 1, device=self.frequency.device) / length
        angle = rearrange(place, "n -> n 1") * self.frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class NoPosition(nn.Identity):
    """Leaves the map as it is."""

    def __init__(self, dim: int) -> None:
        super().__init__()


POSITION: dict[str, type[nn.Module]] = {"none": NoPosition, "sine": SinePosition}
