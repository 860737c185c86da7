"""Plain reference: a volume segmented organ by organ and slice by slice, nothing kept.

Every call encodes the support slice again, as public evaluation code does, at batch 1. EP1 and EP2
after Ouyang et al., arXiv 2007.09886, and Hansen et al., arXiv 2203.02048.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from numpy import ndarray

from catnet.bench.plain_episodes import Pair, plain_episode
from catnet.bench.plain_network import enlarged, plain_forward
from catnet.model.catnet import CATNet

Volume = Bool[ndarray, "d h w"]


@torch.no_grad()
def plain_volume(
    model: CATNet,
    query: Path,
    support: Path,
    *,
    organs: Mapping[str, int],
    protocol: str,
    most: int | None = None,
) -> dict[str, Volume]:
    """The mask of every organ in the prepared case `query`, segmented with `support`.

    `most` ends it after so many slices of every organ.
    """
    device, dtype = model.head.threshold.device, model.head.threshold.dtype
    images, truth = arrays(query)
    shown, labels = arrays(support)
    masks = {}
    for organ, number in organs.items():
        masks[organ] = np.zeros(images.shape, dtype=bool)
        for place, use in slices(labels == number, truth == number, protocol)[:most]:
            support_mask, query_mask = labels[use] == number, truth[place] == number
            pair = Pair(shown[use], support_mask, images[place], query_mask)
            episode = plain_episode(pair, device=device, dtype=dtype)
            logits = plain_forward(model, episode).logits[-1]
            probability = torch.sigmoid(enlarged(logits, like=episode.query_mask[0]))
            masks[organ][place] = (probability > 0.5).cpu().numpy()
    return masks


def arrays(case: Path) -> tuple[ndarray, ndarray]:
    """Image and label of a prepared case."""
    image, label = (np.load(case / f"{k}.npy", allow_pickle=False) for k in ("image", "label"))
    return image, label


def slices(support: Volume, query: Volume, protocol: str) -> list[tuple[int, int]]:
    """Which query slice is segmented with which support slice, from two masks of an organ."""
    there = np.flatnonzero(support.any(axis=(1, 2)))
    wanted = np.flatnonzero(query.any(axis=(1, 2)))
    if not len(there) or not len(wanted):
        return []
    if protocol == "EP2":
        middle = (there[0] + there[-1]) / 2
        use = int(min(there, key=lambda place: abs(place - middle)))
        return [(place, use) for place in range(len(query))]
    edges = [len(wanted) * chunk // 3 for chunk in range(4)]
    middles = [int(there[len(there) * part // 6]) for part in (1, 3, 5)]
    return [
        (int(place), middles[chunk])
        for chunk in range(3)
        for place in wanted[edges[chunk] : edges[chunk + 1]]
    ]
