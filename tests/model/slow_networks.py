"""The equations of the networks beside CAT-Net, one position at a time in double precision."""

import math

import torch
from torch.nn import functional as F


def share_slowly(mask, *, like):
    """The part of each token of `like` (c h w) that a mask (H W) covers."""
    rows, columns = like.shape[-2:]
    high, wide = mask.shape[-2] // rows, mask.shape[-1] // columns
    share = torch.zeros(rows, columns, dtype=torch.float64)
    for row in range(rows):
        for column in range(columns):
            block = mask[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
            share[row, column] = sum(block.flatten().tolist()) / (high * wide)
    return share


def average_slowly(features, shares):
    """The mean of features (s c h w), weighed by shares (s h w); zero where there is none."""
    total, weight = torch.zeros(features.shape[1], dtype=torch.float64), 0.0
    for feature, share in zip(features, shares, strict=True):
        for row in range(share.shape[0]):
            for column in range(share.shape[1]):
                total += float(share[row, column]) * feature[:, row, column].double()
                weight += float(share[row, column])
    return total / weight if weight else total


def score_slowly(one, other):
    """20 cos; nothing is like a vector of zeros."""
    lengths = float(one.norm() * other.norm())
    return 20 * float(one @ other) / lengths if lengths else 0.0


def at_every_position(query, value):
    """`value` of the vector at every position of a query (c h w)."""
    rows, columns = query.shape[-2:]
    return torch.tensor(
        [[value(query[:, r, c].double()) for c in range(columns)] for r in range(rows)],
        dtype=torch.float64,
    )


def panet_slowly(model, support, shares, query):
    """The log odds of a softmax over two prototypes."""
    foreground, background = average_slowly(support, shares), average_slowly(support, 1 - shares)

    def odds(vector):
        powers = [math.exp(score_slowly(vector, p)) for p in (background, foreground)]
        return math.log(powers[1] / sum(powers)) - math.log(powers[0] / sum(powers))

    return at_every_position(query, odds)


def adnet_slowly(model, support, shares, query):
    """The log odds of 1 - sigmoid(0.5 (S - T))."""
    prototype, threshold = average_slowly(support, shares), -float(model.head.threshold)

    def odds(vector):
        anomaly = -score_slowly(vector, prototype)
        probability = 1 - 1 / (1 + math.exp(-0.5 * (anomaly - threshold)))
        return math.log(probability) - math.log(1 - probability)

    return at_every_position(query, odds)


def ranges(size, count):
    """`count` ranges that cover `size` places evenly, and overlap where they have to."""
    return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def cells_slowly(features, shares, *, grid):
    """Mean feature and mean share of each cell, shot by shot."""
    rows, columns = (ranges(size, min(grid, size)) for size in shares.shape[-2:])
    for feature, share in zip(features, shares, strict=True):
        for high in rows:
            for wide in columns:
                places = [(row, column) for row in high for column in wide]
                mean = sum(feature[:, r, c].double() for r, c in places) / len(places)
                yield mean, sum(float(share[r, c]) for r, c in places) / len(places)


def alpnet_slowly(model, support, shares, query):
    """The score of the foreground's prototypes less that of the background's."""
    grid = model.settings.grid * (1 if model.training else 2)
    whole = average_slowly(support, shares)
    local = [mean for mean, part in cells_slowly(support, shares, grid=grid) if part > 0.95]
    bare = [mean for mean, part in cells_slowly(support, 1 - shares, grid=grid) if part > 0.95]
    rest = bare or [average_slowly(support, 1 - shares)]

    def similarity(vector, prototypes):
        scores = [score_slowly(vector, prototype) for prototype in prototypes]
        powers = [math.exp(score) for score in scores]
        return sum(s * p for s, p in zip(scores, powers, strict=True)) / sum(powers)

    return at_every_position(query, lambda v: similarity(v, [*local, whole]) - similarity(v, rest))


SLOWLY = {"panet": panet_slowly, "adnet": adnet_slowly, "alpnet": alpnet_slowly}


def enlarge_slowly(logits, size):
    return F.interpolate(logits[None, None], size, mode="bilinear")[0, 0]


def entropy_slowly(logits, truth):
    """Cross entropy of one slice."""
    terms = []
    for logit, label in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        terms.append(math.log1p(math.exp(-logit if label else logit)))
    return sum(terms) / len(terms)


def dice_slowly(logits, truth):
    """Soft Dice loss of one slice."""
    both = total = 0.0
    for logit, label in zip(logits.flatten().tolist(), truth.flatten().tolist(), strict=True):
        probability = 1 / (1 + math.exp(-logit))
        both, total = both + probability * label, total + probability + label
    return 1 - (2 * both + 1) / (total + 1)
