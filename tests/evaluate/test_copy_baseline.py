"""The floor of the field, counted on the real scans by other code than ours (METHOD section 5)."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from catnet.config import EvaluateSettings
from catnet.data.card import load_card
from catnet.data.folds import fold_indices, split, support_sets
from catnet.data.prepare import prepare
from catnet.data.store import open_cases
from catnet.evaluate.cases import segment_case
from catnet.evaluate.predictors import CopyPredictor

ORGANS = ["liver", "right kidney", "left kidney", "spleen"]
PUBLISHED = {2: [58.6, 45.7, 47.9, 42.3], 3: [59.3, 43.6, 37.8, 39.8], 4: [59.4, 39.0, 44.7, 38.0]}


@pytest.fixture(scope="module")
def prepared(chaos, tmp_path_factory):
    """The card, and all twenty cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(tmp_path_factory.mktemp("chaos")))
        card = load_card(str(Path(__file__).parents[2] / "datasets" / "chaos_t2.yml"))
        assert len(list(prepare(card, chaos))) == 20
        return card, open_cases(card)


def pairs(card, cases, *, index):
    """Every query of every fold, with its support."""
    for fold in range(len(fold_indices(card, len(cases)))):
        tested = split(card, cases, fold).tested
        for supports, queries in support_sets(tested, policy="index", index=index, shots=1):
            yield from ((supports, query) for query in queries)


def dice(mask, truth):
    return 200 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum())


@pytest.mark.parametrize("index", PUBLISHED)
def test_copying_the_support_mask_reaches_the_known_dice(index, prepared):
    card, cases = prepared
    settings = EvaluateSettings(protocols=["EP1"])
    rows = []
    for supports, query in pairs(card, cases, index=index):
        result = segment_case(
            {"copy": CopyPredictor()}, query, supports, organs=card.organs, settings=settings
        )
        for task in result.tasks:
            truth = query.label[task.slices] == card.organs[task.organ]
            rows.append({"organ": task.organ, "dice": dice(task.mask[task.slices], truth)})
    found = pd.DataFrame(rows).groupby("organ")["dice"]
    assert set(found.count()) == {20}
    expected = pytest.approx(PUBLISHED[index], abs=0.1)
    assert [found.mean()[organ] for organ in ORGANS] == expected
