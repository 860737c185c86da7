"""Augmentation, on the device, the whole batch at once: parameters are drawn, then applied.

params = draw(recipe, rngs, height=h, width=w)      on the CPU, one generator an episode
episode = augment(episode, params)                  on the episode's device
"""

from collections.abc import Sequence

import torch
from einops import rearrange

from catnet.augment.intensity import adjust_gamma
from catnet.augment.recipe import NEITHER, QUERY, SUPPORT, Params, Recipe, draw
from catnet.augment.spatial import warp
from catnet.episode import Episode
from catnet.types import Features

__all__ = ["NEITHER", "QUERY", "SUPPORT", "Params", "Recipe", "augment", "draw"]


def augment(episode: Episode, params: Params) -> Episode:
    """Change gamma, then place, on the side of every episode that `params.side` names.

    The other side keeps every bit. All shots of a support move alike, each by its own grey levels.
    Episode and params lie on one device; no value is read back to the host. What does not change
    may be a view of the episode.
    """
    on_support, on_query = ([side == this for side in params.side] for this in (SUPPORT, QUERY))
    support, support_mask = rearrange(episode.support, "b s 1 h w -> b s h w"), episode.support_mask
    query, query_mask = episode.query, rearrange(episode.query_mask, "b h w -> b 1 h w")

    # A query is repeated over the shots, so that both kinds of episode are one batch.
    images = select(on_query, query.expand_as(support), support)
    masks = select(on_query, query_mask.expand_as(support), support_mask)
    images, masks = warp(adjust_gamma(images, params.gamma), masks, by=params)

    return Episode(
        support=rearrange(select(on_support, images, support), "b s h w -> b s 1 h w"),
        support_mask=select(on_support, masks, support_mask),
        query=select(on_query, images[:, :1], query),
        query_mask=rearrange(select(on_query, masks[:, :1], query_mask), "b 1 h w -> b h w"),
    )


def select(first: Sequence[bool], one: Features, other: Features) -> Features:
    """The episodes of `one` where `first` holds, else those of `other`; one alone is not copied."""
    chosen = [one if here else other for here in first]
    if len(chosen) == 1:
        return chosen[0]
    return torch.stack([maps[episode] for episode, maps in enumerate(chosen)])
