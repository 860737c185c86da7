"""Views of cases that nobody evaluated: blobs on a body, sharper from round to round."""

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from catnet.views import CaseViews

ORGANS = ("liver", "right kidney", "left kidney", "spleen")


@lru_cache
def draw_images(name, count, size=128):
    """Slices of a body with organs and noise; a case always looks the same."""
    generator = np.random.default_rng([7, *name.encode()])
    y, x = np.mgrid[:size, :size] / size - 0.5
    body = 1 / (1 + np.exp(60 * (np.hypot(x / 0.46, y / 0.38) - 1)))
    texture = gaussian_filter(generator.normal(size=(count, size, size)), (1, 4, 4)) * 900
    noise = generator.normal(size=(count, size, size)) * 8
    return (body * (110 + texture) + noise).clip(0, 255).astype(np.uint8)


def draw_logits(generator, organ, tokens=32):
    """A lopsided blob at the place of an organ."""
    y, x = np.mgrid[:tokens, :tokens] / tokens
    across, down = ((0.3, 0.45), (0.33, 0.7), (0.66, 0.7), (0.74, 0.42))[organ]
    far = np.hypot(x - across, (y - down) * generator.uniform(0.8, 1.3))
    rough = gaussian_filter(generator.normal(size=(tokens, tokens)), 2)
    return (0.16 if organ == 0 else 0.09) - far + 0.1 * rough


def make_views(query, support, *, seed, shown=12, rounds=4, with_prior=True, size=128, dice=None):
    """One case by one variant; the case and its truth depend on `query` alone."""
    same = np.random.default_rng([3, *query.encode()])
    own = np.random.default_rng([seed, *query.encode(), *support.encode()])
    truth, masks, priors, places = [], [], [], []
    for organ in range(len(ORGANS)):
        for number in range(shown):
            logits = draw_logits(same, organ)
            noise = 0.08 * gaussian_filter(own.normal(size=logits.shape), 1.5)
            steps = [logits + noise * (1 + rounds - r) - 0.02 for r in range(rounds + 1)]
            truth.append(logits)
            masks.append(steps)
            rough = 2 * gaussian_filter(own.normal(size=logits.shape), 1)
            priors.append(255 / (1 + np.exp(-12 * logits + rough)))
            places.append((organ, 2 * organ + number, 5 + 4 * (3 * number // shown) + organ))
    organ, number, source = np.array(places).T
    truth, masks = (zoom_masks(np.array(some), size) for some in (truth, masks))
    slices, sources = np.unique(number), np.unique(source)
    overlap = (masks & truth[:, None]).sum((2, 3))
    total = masks.sum((2, 3)) + truth.sum((1, 2))[:, None]
    slice_dice = 200 * overlap / np.maximum(total, 1)
    means = [slice_dice[organ == place, -1].mean() for place in range(len(ORGANS))]
    return CaseViews(
        query=query,
        support=support,
        first_support=support.partition("+")[0],
        model="catnet",
        organs=ORGANS,
        protocols=("EP1",) * len(ORGANS),
        dice=np.array(means if dice is None else [dice] * len(ORGANS)),
        slices=slices,
        images=draw_images(query, 40, size)[slices],
        support_slices=sources,
        support_images=draw_images(support.partition("+")[0], 40, size)[sources],
        organ=organ,
        query_slice=number,
        support_slice=source,
        truth=truth,
        support_mask=np.roll(truth, 3, axis=-1),
        rounds=masks,
        slice_dice=slice_dice,
        prior=np.array(priors).astype(np.uint8) if with_prior else None,
    )


def zoom_masks(logits, size):
    """Logits at token size to masks at the size of the slice."""
    flat = logits.reshape(-1, *logits.shape[-2:]).astype(np.float32)
    large = [Image.fromarray(one).resize((size, size), Image.Resampling.BILINEAR) for one in flat]
    return (np.array([np.asarray(one) for one in large]) > 0).reshape(
        *logits.shape[:-2], size, size
    )
