"""A new network with its thresholds where its masks keep as little as those of a trained one.

What a mask keeps decides what its cross attention costs in the library. Before training that is all
positions, afterwards an organ's: 4 to 5 of a hundred in the networks that `experiments/reduced.yml`
trains on CHAOS.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from catnet.data.store import Case
from catnet.evaluate.predictors import NetworkPredictor, Support
from catnet.evaluate.protocol import middle, organ_slices

SHARE = 0.05
EVERY = 8  # slices from one that is looked at to the next
TIMES = 2  # what a mask keeps changes the features that the next ones are made of


@torch.no_grad()
def keep_few(
    predictor: NetworkPredictor, query: Case, support: Case, *, organs: Mapping[str, int]
) -> float:
    """Move CAT-Net's thresholds; the share of the positions that its masks keep now."""
    model = predictor.model
    level = torch.tensor(model.settings.keep_threshold).logit()
    for _ in range(TIMES):
        first, _ = said(predictor, query, support, organs=organs)
        model.mife.classify[-1].bias += level - first.quantile(1 - SHARE)
        _, later = said(predictor, query, support, organs=organs)
        model.head.threshold += 2 * (later.quantile(1 - SHARE) - level)
    kept = torch.cat([part > level for part in said(predictor, query, support, organs=organs)])
    return kept.float().mean().item()


def said(
    predictor: NetworkPredictor, query: Case, support: Case, *, organs: Mapping[str, int]
) -> tuple[Tensor, Tensor]:
    """Logits of the first mask, and of all others that a round is given, of some slices."""
    encoded = predictor.query(np.array(query.image[::EVERY]))
    found = [
        predictor.predict(one, encoded, len(encoded.feature)).logits
        for one in middles(predictor, support, organs=organs)
    ]
    first = [logits[0].flatten() for logits in found]
    later = [logits.flatten() for one in found for logits in one[1:-1]]
    return torch.cat(first), torch.cat(later)


def middles(
    predictor: NetworkPredictor, support: Case, *, organs: Mapping[str, int]
) -> Iterator[Support]:
    """The middle slice of every organ in a support."""
    for organ, number in organs.items():
        place = middle(organ_slices(support, organ))
        mask = support.label[place : place + 1] == number
        yield predictor.support(np.array(support.image[place : place + 1]), mask.astype(np.float32))
