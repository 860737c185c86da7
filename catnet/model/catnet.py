"""CAT-Net: encoder, MIFE, N rounds of CMAT and a prototype head after each.

Paper: "Few Shot Medical Image Segmentation with Cross Attention Transformer", Lin, Chen, Cheng and
Chen, MICCAI 2023, arXiv 2303.13867.

    M_0 from MIFE;  F_i = CMAT_i(F_{i-1}, M_s, M^_{i-1});  M_i = head(F_i);  F = (F_s, F_q)

M_i is the mask at probability 0.5; M^_i, which the next round is given, the wider one at
`keep_threshold`, so that borderline foreground is not lost.
"""

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from catnet.config import ModelSettings
from catnet.model.attention import build_attention, build_cross_attention, check_places
from catnet.model.cmat import CrossAttention, Round, SelfAttention, Streams
from catnet.model.encoder import Encoded
from catnet.model.mife import MIFE
from catnet.model.network import Network, Prediction
from catnet.model.ops import for_queries, over_shots, to_tokens
from catnet.model.position import POSITION
from catnet.model.prototype import PrototypeHead


class CATNet(Network):
    """MIFE, rounds of CMAT, and a prototype head after each: M_0 .. M_N."""

    name: ClassVar[str] = "catnet"

    def __init__(self, settings: ModelSettings) -> None:
        check_places(settings)
        super().__init__(settings)
        if settings.prior == "fixed":
            self.encoder.fix_deep()
        self.mife = MIFE(dim=settings.dim)
        self.position = POSITION[settings.position](settings.dim)
        distinct = min(settings.rounds, 1) if settings.share_rounds else settings.rounds
        self.cmat = nn.ModuleList(build_round(settings) for _ in range(distinct))
        self.head = PrototypeHead(score=settings.score)

    def segment(
        self,
        support: Encoded,
        support_mask: Float[Tensor, "g s H W"],
        query: Encoded,
        counts: Sequence[int] | None = None,
    ) -> Prediction:
        """Segment encoded queries (b, ...) with encoded supports (g, s, ...) and their masks.

        Until the streams meet in the first round, a support is looked at once for all its queries.
        """
        share = to_tokens(support_mask, like=support.feature)
        support_feature, query_feature, logits = self.mife(support, share, query, counts)
        share = for_queries(share, counts)
        support_kept = (share > 0).to(share)
        masks, maps = [logits], (None, None)
        if self.settings.rounds == 0:
            support_feature = for_queries(support_feature, counts)
            masks.append(self.head(support_feature, share, query_feature))
        else:
            support_feature = over_shots(self.position, support_feature)
            query_feature = self.position(query_feature)
        for number in range(self.settings.rounds):
            cmat = self.cmat[number % len(self.cmat)]
            kept = (masks[-1].sigmoid() > self.settings.keep_threshold).to(share)
            support_feature, query_feature, maps = cmat(
                Streams(support_feature, support_kept, query_feature, kept, maps, counts)
            )
            counts = None
            masks.append(self.head(support_feature, share, query_feature))
        return Prediction(tuple(masks), support_feature, query_feature, support_mask.shape[-2:])


def build_round(settings: ModelSettings) -> Round:
    """One CMAT with its own weights."""

    def self_attention() -> SelfAttention:
        return SelfAttention(
            dim=settings.dim,
            attention=build_attention(settings.attention, settings.dim, settings.attention_options),
            ffn=settings.ffn,
            mlp_ratio=settings.mlp_ratio,
        )

    return Round(
        self_support=self_attention(),
        self_query=None if settings.share_streams else self_attention(),
        cross=CrossAttention(
            dim=settings.dim,
            attention=build_cross_attention(
                settings.cross_attention, settings.dim, settings.cross_attention_options
            ),
            ffn=settings.ffn,
            mlp_ratio=settings.mlp_ratio,
            mask_on=settings.mask_on,
            mask_how=settings.mask_how,
        ),
        direction=settings.direction,
    )
