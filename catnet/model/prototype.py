"""The prototype head: a cosine score against the support's prototype, and two ways to read it.

    p = masked_average(F, M),   score = 20 cos(F_q, p)

`threshold`: foreground logit = 0.5 (score - T), one learnt T that starts at 10; "Anomaly
Detection-Inspired Few-Shot Medical Image Segmentation Through Self-Supervision With Supervoxels",
Hansen et al., Medical Image Analysis 2022, arXiv 2203.02048 (ADNet).
`softmax`: softmax over the scores of a foreground and a background prototype; "PANet: Few-Shot
Image Semantic Segmentation with Prototype Alignment", Wang et al., ICCV 2019, arXiv 1908.06391.
"""

from typing import Literal

import torch
from einops import pack, repeat, unpack
from jaxtyping import Float
from torch import Tensor, nn

from catnet.model.ops import cosine_map, masked_average
from catnet.types import Features, Map

SCALE = 20.0


class PrototypeHead(nn.Module):
    """Logits of the foreground from prototypes; (b, h, w) at the size of the features."""

    def __init__(self, *, score: Literal["threshold", "softmax"]) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(10.0)) if score == "threshold" else None

    def forward(
        self, support: Float[Tensor, "b s c h w"], share: Float[Tensor, "b s h w"], query: Features
    ) -> Map:
        """Segment `query` with the prototype of `support`, whose mask covers `share` of a token."""
        foreground = SCALE * cosine_map(query, masked_average(support, share))
        if self.threshold is not None:
            return 0.5 * (foreground - self.threshold)
        return foreground - SCALE * cosine_map(query, masked_average(support, 1 - share))

    def align(
        self, support: Float[Tensor, "b s c h w"], query: Features, share: Map
    ) -> Float[Tensor, "b s h w"]:
        """Segment every support shot with the prototype of the query (PANet's alignment).

        `share` is the predicted query mask; where it is empty there is no prototype, and what
        comes back says nothing: the loss leaves such episodes out.
        """
        shots = support.shape[1]
        source = repeat(query, "b c h w -> (b s) 1 c h w", s=shots)
        shares = repeat(share, "b h w -> (b s) 1 h w", s=shots)
        flat, leading = pack([support], "* c h w")
        return unpack(self(source, shares, flat), leading, "* h w")[0]
