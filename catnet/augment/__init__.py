"""Augmentation, on the device, the whole batch at once: parameters are drawn, then applied.

params = draw(recipe, rngs, height=h, width=w)      on the CPU, one generator an episode
episode = augment(episode, params)                  on the episode's device
"""

import torch
from einops import rearrange

from catnet.augment.intensity import adjust_gamma
from catnet.augment.recipe import NEITHER, QUERY, SUPPORT, Params, Recipe, draw
from catnet.augment.spatial import displacement, warp
from catnet.episode import Episode

__all__ = ["NEITHER", "QUERY", "SUPPORT", "Params", "Recipe", "augment", "draw"]


def augment(episode: Episode, params: Params) -> Episode:
    """Change gamma, then place, on the side of every episode that `params.side` names.

    The other side keeps every bit. All shots of a support move alike, each by its own grey levels.
    Episode and params lie on one device; no value is read back to the host.
    """
    side = rearrange(params.side, "b -> b 1 1 1")
    on_support, on_query = side == SUPPORT, side == QUERY
    support = rearrange(episode.support, "b s 1 h w -> b s h w")
    query_mask = rearrange(episode.query_mask, "b h w -> b 1 h w")

    # A query is repeated over the shots, so that both kinds of episode are one batch.
    images = torch.where(on_query, episode.query, support)
    masks = torch.where(on_query, query_mask, episode.support_mask)
    images = adjust_gamma(images, params.gamma)
    height, width = images.shape[-2:]
    images, masks = warp(images, masks, by=displacement(params, height=height, width=width))

    support = torch.where(on_support, images, support)
    query_mask = torch.where(on_query, masks[:, :1], query_mask)
    return Episode(
        support=rearrange(support, "b s h w -> b s 1 h w"),
        support_mask=torch.where(on_support, masks, episode.support_mask),
        query=torch.where(on_query, images[:, :1], episode.query),
        query_mask=rearrange(query_mask, "b 1 h w -> b h w"),
    )
