"""MIFE: mask incorporated feature extraction, CAT-Net's first stage.

Paper: Lin et al., MICCAI 2023, arXiv 2303.13867, section 2.1. The prior is that of "Prior Guided
Feature Enrichment Network", Tian et al., TPAMI 2020, arXiv 2008.01449.

    p     = masked_average(F_s, M_s)
    prior = minmax(max over support foreground j of cos(deep_q(i), deep_s(j)))
    F0_s  = relu(conv1x1([F_s, p, M_s])),   F0_q = relu(conv1x1([F_q, p, prior]))
    M_0   = conv1x1(relu(conv3x3(F0_q)))

PFENet's prior is not trained. Here the stage behind it is, as in all that public code of CAT-Net
trains, unless `model.prior` is `fixed`: then it stays what its weights were at the start.
"""

from collections.abc import Sequence

import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.model.encoder import Encoded
from catnet.model.kept import kept_tokens
from catnet.model.ops import for_queries, masked_average, over_shots, spread, to_unit_range
from catnet.types import Features, Map

SMALLEST = 1e-12  # length of a feature that is nothing, as in F.normalize


class MIFE(nn.Module):
    """Mix the mask into the support and the prior into the query; guess a first query mask."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.mix_support = nn.Conv2d(2 * dim + 1, dim, 1)
        self.mix_query = nn.Conv2d(2 * dim + 1, dim, 1)
        self.classify = nn.Sequential(
            nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, 1, 1)
        )

    def forward(
        self,
        support: Encoded,
        share: Float[Tensor, "g s h w"],
        query: Encoded,
        counts: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "g s c h w"], Features, Map]:
        """F0_s (g s c h w), F0_q (b c h w) and the logits of M_0 (b h w), all at token size.

        `share` is the part of each token that the support mask covers; `counts` says how many
        queries each support is for, one without it.
        """
        prototype = masked_average(support.feature, share)
        prototypes = repeat(
            spread(prototype, like=query.feature), "g c h w -> g s c h w", s=share.shape[1]
        )
        mixed = torch.cat(
            [support.feature, prototypes, rearrange(share, "g s h w -> g s 1 h w")], dim=2
        )
        support_feature = F.relu(over_shots(self.mix_support, mixed))
        everywhere = spread(for_queries(prototype, counts), like=query.feature)
        prior = similarity_prior(support.deep, share, query.deep, counts)
        prior = rearrange(prior, "b h w -> b 1 h w")
        query_feature = F.relu(self.mix_query(torch.cat([query.feature, everywhere, prior], dim=1)))
        return support_feature, query_feature, self.classify(query_feature).squeeze(1)


def similarity_prior(
    support: Float[Tensor, "g s c h w"],
    share: Float[Tensor, "g s h w"],
    query: Features,
    counts: Sequence[int] | None = None,
) -> Map:
    """How much each query position looks like some foreground position, in [0, 1] (PFENet).

    A token is foreground where the mask covers any of it. Without foreground the prior is zero.
    """
    tokens = rearrange(support, "g s c h w -> g (s h w) c")
    foreground = rearrange(share, "g s h w -> g (s h w)") > 0
    kept = kept_tokens(foreground.float())
    if kept is not None:
        tokens, foreground = kept.of(tokens), kept.counts
    normal = for_queries(F.normalize(tokens.float(), dim=-1), counts)
    foreground = for_queries(foreground, counts)
    length = query.float().norm(dim=1).clamp_min(SMALLEST)
    product = einsum(query.float(), normal, "b c h w, b n c -> b h w n")
    cosine = product / rearrange(length, "b h w -> b h w 1")
    best = cosine.masked_fill(~rearrange(foreground, "b n -> b 1 1 n"), -1.0).amax(dim=-1)
    return to_unit_range(best)
