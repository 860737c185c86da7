"""The mechanisms' equations with tensors but without craft: what speed is measured against.

Softmax of all logits at once instead of scaled_dot_product_attention, windows by plain slices. Each
function takes a module for its weights, and a map that attends to itself.
"""

import torch
from einops import rearrange
from torch.nn import functional as F


def tokens(x):
    return rearrange(x, "b c h w -> b (h w) c")


def image(tokens, *, like):
    return rearrange(tokens, "b (h w) c -> b c h w", h=like.shape[-2])


def attend(query, key, value, *, heads, scale):
    """softmax(scale Q K^T) V per head, (b, n, c)."""
    query, key, value = (
        rearrange(part, "b n (heads d) -> b heads n d", heads=heads) for part in (query, key, value)
    )
    weights = (scale * (query @ key.mT)).softmax(dim=-1)
    return rearrange(weights @ value, "b heads n d -> b n (heads d)")


def masked(module, x):
    query = module.query(tokens(x))
    key, value = module.key_value(tokens(x)).chunk(2, dim=-1)
    scale = (x.shape[1] // module.heads) ** -0.5
    mixed = attend(query, key, value, heads=module.heads, scale=scale)
    return image(module.project(mixed), like=x)


def lsa(module, x):
    """Window after window; the last ones hold what is left."""
    query = module.query(rearrange(x, "b c h w -> b h w c"))
    key, value = module.key_value(rearrange(x, "b c h w -> b h w c")).chunk(2, dim=-1)
    rows = []
    for row in range(0, x.shape[-2], module.window):
        row_windows = []
        for column in range(0, x.shape[-1], module.window):
            place = slice(row, row + module.window), slice(column, column + module.window)
            parts = [part[:, place[0], place[1]] for part in (query, key, value)]
            flat = [rearrange(part, "b h w c -> b (h w) c") for part in parts]
            mixed = attend(*flat, heads=module.heads, scale=module.scale)
            row_windows.append(mixed.unflatten(1, parts[0].shape[1:3]))
        rows.append(torch.cat(row_windows, dim=2))
    return rearrange(module.project(torch.cat(rows, dim=1)), "b h w c -> b c h w")


def gsa(module, x):
    query = module.query(tokens(x))
    key, value = module.key_value(tokens(module.cells(x))).chunk(2, dim=-1)
    mixed = attend(query, key, value, heads=module.heads, scale=module.scale)
    return image(module.project(mixed), like=x)


def outlook(module, x):
    """As the authors have it: unfold, one product, fold; stride 1."""
    kernel = module.kernel
    value = F.unfold(image(module.value(tokens(x)), like=x), kernel, padding=kernel // 2)
    value = rearrange(value, "b (heads d k) n -> b heads n k d", heads=module.heads, k=kernel**2)
    logits = rearrange(
        module.scale * module.weigh(tokens(x)),
        "b n (heads q k) -> b heads n q k",
        heads=module.heads,
        q=kernel**2,
    )
    mixed = rearrange(logits.softmax(dim=-1) @ value, "b heads n q d -> b (heads d q) n")
    summed = F.fold(mixed, x.shape[-2:], kernel, padding=kernel // 2)
    return image(module.project(tokens(summed)), like=x)


def nonlocal_block(module, x):
    query, key, value = module.query(x), module.key(x), module.value(x)
    if module.subsample:
        key, value = F.max_pool2d(key, 2), F.max_pool2d(value, 2)
    found = attend(tokens(query), tokens(key), tokens(value), heads=1, scale=1.0)
    return x + module.norm(module.project(image(found, like=x)))


def a2(module, x):
    feature, where, which = (
        layer(x).flatten(2) for layer in (module.feature, module.gather, module.distribute)
    )
    descriptors = feature @ where.softmax(dim=-1).mT
    return x + module.expand((descriptors @ which.softmax(dim=1)).unflatten(-1, x.shape[-2:]))


def gc(module, x):
    weights = module.where(tokens(x)).softmax(dim=1)
    pooled = (tokens(x) * weights).sum(dim=1)
    return x + module.add(pooled)[:, :, None, None]


def se(module, x):
    return x * module.excite(x.mean(dim=(2, 3)))[:, :, None, None]


def eca(module, x):
    means = x.mean(dim=(2, 3))[:, None]
    return x * module.convolution(means).sigmoid().mT[..., None]


PLAIN = {
    "masked": masked,
    "outlook": outlook,
    "lsa": lsa,
    "gsa": gsa,
    "nonlocal": nonlocal_block,
    "a2": a2,
    "gc": gc,
    "se": se,
    "eca": eca,
}
