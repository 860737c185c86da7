"""SSL-ALPNet: adaptive local prototype pooling, a prototype for every cell of the support.

Paper: "Self-Supervision with Superpixels: Training Few-shot Medical Image Segmentation without
Annotation", Ouyang, Biffi, Chen, Kart, Qiu and Rueckert, ECCV 2020, arXiv 2007.09886.

    p_k = mean of F_s over cell k, for the cells that the mask covers by more than 0.95
    P_f = {p_k of M_s} and the masked average of F_s;   P_b = {p_k of 1 - M_s}
    s   = sum over P of softmax(20 cos(F_q, p)) 20 cos(F_q, p)        for P_f and for P_b
    M   = softmax over the two s;   L = L_seg + a L_align, as PANet's

A map has `grid` x `grid` cells while it trains and twice as many on a side when it is evaluated:
4 x 4 and 2 x 2 tokens of a 32 x 32 map at the default of 8. There are never more cells than tokens,
so that on an 8 x 8 map every token is a cell; cells overlap where they do not divide a map. Where
no cell of the background is covered, its masked average stands in, as the foreground's does.

Differs from the authors' code: the encoder of this bench for a dilated ResNet-101 with COCO
weights; one average over the foreground of all shots, not one a shot; an episode without a
predicted foreground is left out of the alignment; L_seg has a soft Dice beside the cross entropy,
as for every network here; its superpixels are the supervoxels of this bench.
"""

from typing import ClassVar

import torch
from einops import einsum, pack, rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.config import ModelSettings
from catnet.model.ops import SMALL, masked_average, over_shots
from catnet.model.prototype import SCALE, PrototypeNetwork
from catnet.types import Features, Map

COVERED = 0.95


class ALPNet(PrototypeNetwork):
    """Local prototypes of both sides, and a class-level one of the foreground."""

    name: ClassVar[str] = "alpnet"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings, head=LocalHead(grid=settings.grid))


class LocalHead(nn.Module):
    """Logits of the foreground from local prototypes; (b, h, w) at the size of the features."""

    def __init__(self, *, grid: int) -> None:
        super().__init__()
        self.grid = grid

    def forward(
        self, support: Float[Tensor, "b s c h w"], share: Float[Tensor, "b s h w"], query: Features
    ) -> Map:
        """Segment `query` with the prototypes of `support`, covered by the mask to `share`."""
        cells = self.pool(support)
        foreground, background = share, 1 - share
        covered, bare = (self.pool_mask(part) > COVERED for part in (foreground, background))
        always = covered.new_ones(covered.shape[0])
        whole, rest = (masked_average(support, part) for part in (foreground, background))
        return similarity(query, *with_whole(cells, covered, whole=whole, use=always)) - similarity(
            query, *with_whole(cells, bare, whole=rest, use=~bare.any(dim=1))
        )

    def pool(self, support: Float[Tensor, "b s c h w"]) -> Float[Tensor, "b n c"]:
        """The mean feature of every cell, the shots one after the other."""
        grid = self.grid if self.training else 2 * self.grid
        size = [min(grid, tokens) for tokens in support.shape[-2:]]
        means = over_shots(lambda x: F.adaptive_avg_pool2d(x, size), support)
        return rearrange(means, "b s c i j -> b (s i j) c")

    def pool_mask(self, share: Float[Tensor, "b s h w"]) -> Float[Tensor, "b n"]:
        """The part of every cell that the mask covers."""
        return rearrange(self.pool(rearrange(share, "b s h w -> b s 1 h w")), "b n 1 -> b n")


def with_whole(
    cells: Float[Tensor, "b n c"],
    usable: Bool[Tensor, "b n"],
    *,
    whole: Float[Tensor, "b c"],
    use: Bool[Tensor, "b"],  # noqa: F821
) -> tuple[Float[Tensor, "b m c"], Bool[Tensor, "b m"]]:
    """The prototypes of all cells and of the whole class, and which of them count."""
    return pack([cells, whole], "b * c")[0], pack([usable, use], "b *")[0]


def similarity(
    query: Features, prototypes: Float[Tensor, "b m c"], usable: Bool[Tensor, "b m"]
) -> Map:
    """The mean score against the usable prototypes, each weighed by the softmax of the scores."""
    query = F.normalize(query.float(), dim=1, eps=SMALL)
    prototypes = F.normalize(prototypes.float(), dim=2, eps=SMALL)
    with torch.autocast(query.device.type, enabled=False):  # a score of 20 is coarse in bfloat16
        scores = SCALE * einsum(query, prototypes, "b c h w, b m c -> b m h w")
    weights = scores.masked_fill(~rearrange(usable, "b m -> b m 1 1"), -torch.inf).softmax(dim=1)
    return (weights * scores).sum(dim=1)
