"""Networks of prototypes, and their head: a cosine score against the support's prototype.

    p = masked_average(F, M),   score = 20 cos(F_q, p)

`threshold`: foreground logit = 0.5 (score - T), one learnt T that starts at 10; "Anomaly
Detection-Inspired Few-Shot Medical Image Segmentation Through Self-Supervision With Supervoxels",
Hansen et al., Medical Image Analysis 2022, arXiv 2203.02048 (ADNet).
`softmax`: softmax over the scores of a foreground and a background prototype; "PANet: Few-Shot
Image Semantic Segmentation with Prototype Alignment", Wang et al., ICCV 2019, arXiv 1908.06391.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from catnet.config import ModelSettings
from catnet.model.encoder import Encoded
from catnet.model.network import Network, Prediction
from catnet.model.ops import cosine_map, for_queries, masked_average, to_tokens
from catnet.types import Features, Images, Map

SCALE = 20.0
START = 10.0  # of a learnt threshold: ADNet's T of -10


class PrototypeHead(nn.Module):
    """Logits of the foreground from prototypes; (b, h, w) at the size of the features."""

    def __init__(self, *, score: Literal["threshold", "softmax"]) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(START)) if score == "threshold" else None

    def forward(
        self, support: Float[Tensor, "b s c h w"], share: Float[Tensor, "b s h w"], query: Features
    ) -> Map:
        """Segment `query` with the prototype of `support`, whose mask covers `share` of a token."""
        foreground = SCALE * cosine_map(query, masked_average(support, share))
        if self.threshold is not None:
            return 0.5 * (foreground - self.threshold)
        return foreground - SCALE * cosine_map(query, masked_average(support, 1 - share))


class PrototypeNetwork(Network):
    """A network that compares the query with prototypes of the support, and nothing more.

    F = feature + conv1x1(deep): one 1x1 convolution of the encoder's stages 2 to 4, so that a
    network without a prior has a use for all of them.
    """

    def __init__(self, settings: ModelSettings, *, head: nn.Module) -> None:
        super().__init__(settings)
        self.deepen = nn.Conv2d(self.encoder.deep_channels, settings.dim, 1)
        self.head = head

    def encode(self, images: Images) -> Encoded:
        """F of slices (n, 1, H, W), and the last stage as it is."""
        both = super().encode(images)
        return Encoded(both.feature + self.deepen(both.deep), both.deep)

    def segment(
        self,
        support: Encoded,
        support_mask: Float[Tensor, "g s H W"],
        query: Encoded,
        counts: Sequence[int] | None = None,
    ) -> Prediction:
        """One mask, by the head alone."""
        feature = for_queries(support.feature, counts)
        share = for_queries(to_tokens(support_mask, like=support.feature), counts)
        logits = self.head(feature, share, query.feature)
        return Prediction((logits,), feature, query.feature, support_mask.shape[-2:])
