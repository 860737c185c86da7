"""Plain reference: CAT-Net of Lin et al., arXiv 2303.13867, for one episode with one shot.

    p     = masked average of the support,  prior = best cosine with the support's foreground
    F0_s  = relu(conv1x1 [F_s, p, M_s]),    F0_q = relu(conv1x1 [F_q, p, prior]),   M_0 from F0_q
    round X   = LN(MLP(SA(F)) + F) of each stream
          F   = X + CA(X, other) * mask,    LN,    F + MLP(F),    LN
    head  0.5 (20 cos(F_q, p) - T)

Support and query are encoded by two calls, attention is two matrix products with a softmax over
all tokens between them, and the mask is multiplied in afterwards. The weights are those of a
`CATNet` with default choices: attention `masked`, a mask on the queries, both directions, one
self-attention for both streams, `mlp`, `sine`, `threshold`.
"""

import math
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.bench.plain_words import (
    average,
    cosine_score,
    minmax,
    normed,
    share_of_tokens,
    sine_position,
)
from catnet.episode import Episode
from catnet.model.catnet import CATNet
from catnet.model.cmat import CrossAttention, SelfAttention
from catnet.model.encoder import Encoder

Feature = Float[Tensor, "1 c h w"]
Deep = Float[Tensor, "1 e h w"]
Logits = Float[Tensor, "h w"]


@dataclass(frozen=True)
class PlainPrediction:
    """The logits of M_0 .. M_N at token size, and the last features with the support's share."""

    logits: tuple[Logits, ...]
    support: Feature
    query: Feature
    share: Logits


def plain_forward(model: CATNet, episode: Episode) -> PlainPrediction:
    """Segment the query of a batch of one episode with one shot."""
    support, support_deep = plain_encode(model.encoder, episode.support[:, 0])
    query, query_deep = plain_encode(model.encoder, episode.query)
    share = share_of_tokens(episode.support_mask[0, 0], like=support)
    support, query, first = plain_mife(model, support, query, share, (support_deep, query_deep))
    logits = [first]
    position = sine_position(query)
    support, query = support + position, query + position
    for cmat in model.cmat:
        kept = (torch.sigmoid(logits[-1]) > model.settings.keep_threshold).to(query.dtype)
        support = self_attended(cmat.self_support, support)
        query = self_attended(cmat.self_support, query)
        support, query = (
            cross_attended(cmat.cross, support, query, (share > 0).to(query.dtype)),
            cross_attended(cmat.cross, query, support, kept),
        )
        logits.append(plain_head(model, support, share, query))
    return PlainPrediction(tuple(logits), support, query, share)


def plain_encode(encoder: Encoder, image: Float[Tensor, "1 1 H W"]) -> tuple[Feature, Deep]:
    """The feature of stages 2 and 3, and stage 4; led in by half a stride as the library does."""
    lead = encoder.output_stride // 2
    *_, second, third, deep = encoder.backbone(F.pad(image, (lead, 0, lead, 0), mode="replicate"))
    if second.shape != third.shape and encoder.output_stride == 16:
        second = F.avg_pool2d(second, 3, stride=2, padding=1, count_include_pad=False)
    feature = encoder.reduce(torch.cat([second, third], dim=1))
    return feature[:, :, 1:, 1:], deep[:, :, 1:, 1:]


def plain_mife(
    model: CATNet, support: Feature, query: Feature, share: Logits, deep: tuple[Deep, Deep]
) -> tuple[Feature, Feature, Logits]:
    """F0 of both streams, and the logits of M_0."""
    height, width = share.shape
    prototype = repeat(average(support, share), "c -> 1 c h w", h=height, w=width)
    support_deep, query_deep = (
        F.normalize(rearrange(x, "1 c h w -> (h w) c"), dim=1) for x in deep
    )
    cosine = query_deep @ support_deep.mT
    outside = rearrange(share == 0, "h w -> 1 (h w)")
    best = cosine.masked_fill(outside, -1.0).max(dim=1).values
    prior = rearrange(minmax(best), "(h w) -> 1 1 h w", h=height)
    mixed = torch.cat([support, prototype, share[None, None]], dim=1)
    support = torch.relu(model.mife.mix_support(mixed))
    query = torch.relu(model.mife.mix_query(torch.cat([query, prototype, prior], dim=1)))
    return support, query, model.mife.classify(query)[0, 0]


def self_attended(place: SelfAttention, x: Feature) -> Feature:
    """LN(MLP(SA(F)) + F)."""
    return normed(place.norm, place.ffn(attended(place.attention, x, x)) + x)


def cross_attended(place: CrossAttention, x: Feature, other: Feature, kept: Logits) -> Feature:
    """`x` after receiving from `other` where `kept` is one; as it was where that is nowhere."""
    if kept.sum() == 0:
        return x
    changed = normed(place.attended_norm, x + attended(place.attention, x, other) * kept)
    return normed(place.norm, changed + place.ffn(changed))


def attended(attention: nn.Module, x: Feature, other: Feature) -> Feature:
    """softmax(Q K^T / sqrt d) V by head, all tokens to all tokens."""
    tokens, others = (rearrange(stream, "1 c h w -> (h w) c") for stream in (x, other))
    key, value = attention.key_value(others).chunk(2, dim=1)
    query, key, value = (
        rearrange(part, "n (heads d) -> heads n d", heads=attention.heads)
        for part in (attention.query(tokens), key, value)
    )
    weights = torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1)
    received = rearrange(weights @ value, "heads n d -> n (heads d)")
    return rearrange(attention.project(received), "(h w) c -> 1 c h w", h=x.shape[-2])


def plain_head(model: CATNet, support: Feature, share: Logits, query: Feature) -> Logits:
    """0.5 (20 cos(F_q, p) - T)."""
    return 0.5 * (cosine_score(query, average(support, share)) - model.head.threshold)


def plain_loss(model: CATNet, episode: Episode, *, alignment: float) -> Float[Tensor, ""]:
    """Cross entropy and soft Dice of M_0 .. M_N, evenly weighed, and the prototype alignment."""
    found = plain_forward(model, episode)
    truth, support_truth = episode.query_mask[0], episode.support_mask[0, 0]
    losses = [mask_loss(enlarged(logits, like=truth), truth) for logits in found.logits]
    loss = torch.stack(losses).mean()
    share = (found.logits[-1] > 0).to(found.query.dtype)
    if share.sum() > 0:
        logits = plain_head(model, found.query, share, found.support)
        entropy = F.binary_cross_entropy_with_logits
        loss = loss + alignment * entropy(enlarged(logits, like=support_truth), support_truth)
    return loss


def mask_loss(logits: Logits, truth: Logits) -> Float[Tensor, ""]:
    """Cross entropy and soft Dice of one mask."""
    probability = torch.sigmoid(logits)
    overlap, total = (probability * truth).sum(), probability.sum() + truth.sum()
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    return entropy + 1 - (2 * overlap + 1) / (total + 1)


def enlarged(logits: Logits, *, like: Float[Tensor, "H W"]) -> Float[Tensor, "H W"]:
    """Logits at the size of the slice, bilinearly."""
    size = like.shape
    return F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)[0, 0]
