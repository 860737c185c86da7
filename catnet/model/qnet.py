"""Q-Net: ADNet at two scales, with a threshold and at test time prototypes that the query informs.

Paper: "Q-Net: Query-Informed Few-Shot Medical Image Segmentation", Shen, Li, Jin and Liu, 2022,
arXiv 2208.11451.

    t = w . mean(D_q) + b,   p = masked_average(F_s, M_s),   l = 0.5 (20 cos(F_q, p) - t)
    M = sigmoid(0.9 l(fine) + 0.1 l(coarse)),   L = L_seg + a L_align

F is the encoder's feature (fine), or its last stage D at half that resolution, reduced by a 1x1
convolution (coarse); t is -T of ADNet. Where the network is evaluated, each scale refines its own p
(`catnet.model.refinement`) for `refinement` steps. The alignment has the query's t, and as in the
authors' code no term for the threshold stands in the loss.

Differs from the authors' code: theirs takes stage 3 at stride 8 and stage 4 at stride 16 of a
ResNet-101; the encoder of this bench has all stages at one stride, stage 2 joins stage 3, and stage
4 is pooled 2 x 2. Their threshold is ImageNet's classifier and one more linear layer, here a single
one that starts near ADNet's. They average probabilities, here logits, which is what is enlarged to
the slice. L_seg has a soft Dice beside the cross entropy, as for every network here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from einops import rearrange, reduce, repeat
from jaxtyping import Float
from torch import Tensor, nn

from catnet.config import ModelSettings
from catnet.model.encoder import Encoded
from catnet.model.network import Network, Prediction
from catnet.model.ops import enlarge, for_queries, masked_average, over_shots, to_tokens
from catnet.model.prototype import START
from catnet.model.refinement import Thresholds, margin, refine
from catnet.types import Context, Features, Map

FINE = 0.9  # weight of the fine scale, as in the authors' code


@dataclass(frozen=True)
class TwoScales(Prediction):
    """A prediction with what the alignment needs besides: the coarse scale, and t of the query."""

    coarse_support: Float[Tensor, "b s c i j"]
    coarse_query: Context
    threshold: Thresholds


class QNet(Network):
    """Two anomaly scores, of the feature and of the last stage, against t of the query."""

    name: ClassVar[str] = "qnet"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        deep = self.encoder.deep_channels
        self.coarse = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(deep, settings.dim, 1))
        self.threshold = nn.Linear(deep, 1)
        nn.init.constant_(self.threshold.bias, START)

    def segment(
        self,
        support: Encoded,
        support_mask: Float[Tensor, "g s H W"],
        query: Encoded,
        counts: Sequence[int] | None = None,
    ) -> TwoScales:
        """Segment encoded queries with encoded supports and their masks, at both scales."""
        threshold = self.threshold(reduce(query.deep, "b c h w -> b c", "mean")).squeeze(1)
        scales = support.feature, over_shots(self.coarse, support.deep)
        supports = [for_queries(scale, counts) for scale in scales]
        support_mask = for_queries(support_mask, counts)
        queries = query.feature, self.coarse(query.deep)
        fine, coarse = (
            self.segment_scale(one, support_mask, other, threshold=threshold)
            for one, other in zip(supports, queries, strict=True)
        )
        return TwoScales(
            (fuse(fine, coarse),),
            support=supports[0],
            query=queries[0],
            size=support_mask.shape[-2:],
            coarse_support=supports[1],
            coarse_query=queries[1],
            threshold=threshold,
        )

    def segment_scale(
        self,
        support: Float[Tensor, "b s c h w"],
        mask: Float[Tensor, "b s H W"],
        query: Features,
        *,
        threshold: Thresholds,
    ) -> Map:
        """Logits at one scale, with the prototype refined where the network is evaluated."""
        prototype = masked_average(support, to_tokens(mask, like=support))
        if not self.training:
            steps = self.settings.refinement
            prototype = refine(prototype, query, threshold=threshold, steps=steps)
        return margin(query, prototype, threshold=threshold)

    def align(self, prediction: TwoScales) -> Float[Tensor, "b s h w"]:
        """Logits of every support shot against the query's prototypes, unrefined, and its t."""
        fine = align_scale(prediction.support, prediction.query, prediction=prediction)
        coarse = align_scale(
            prediction.coarse_support, prediction.coarse_query, prediction=prediction
        )
        shots = prediction.support.shape[1]
        return rearrange(fuse(fine, coarse), "(b s) h w -> b s h w", s=shots)


def fuse(fine: Map, coarse: Float[Tensor, "b i j"]) -> Map:
    """The weighted mean of the logits of both scales, at the size of the fine one."""
    return FINE * fine + (1 - FINE) * enlarge(coarse, size=fine.shape[-2:])


def align_scale(
    support: Float[Tensor, "b s c h w"], query: Features, *, prediction: TwoScales
) -> Float[Tensor, "n h w"]:
    """Logits of all shots at one scale, the shots in the batch."""
    share = to_tokens(prediction.found, like=query)
    prototype = masked_average(
        rearrange(query, "b c h w -> b 1 c h w"), rearrange(share, "b h w -> b 1 h w")
    )
    shots = support.shape[1]
    return margin(
        rearrange(support, "b s c h w -> (b s) c h w"),
        repeat(prototype, "b c -> (b s) c", s=shots),
        threshold=repeat(prediction.threshold, "b -> (b s)", s=shots),
    )
