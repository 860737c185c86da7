"""What is held of a tall volume while it is evaluated: masks grow with it, features do not."""

import weakref
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from oracles import Everything

from catnet.config import EvaluateSettings
from catnet.data.store import Case
from catnet.evaluate.cases import segment_query
from catnet.evaluate.predictors import Support
from catnet.model.encoder import Encoded


@dataclass(frozen=True)
class Tall(Case):
    """A volume of so many slices, of which every one but the ends shows both organs."""

    slices: int = 100

    @cached_property
    def meta(self):
        shown = (0, *[2] * (self.slices - 2), 0)
        shape = (self.slices, 4, 4)
        return SimpleNamespace(case=str(self.folder), shape=shape, pixels={"a": shown, "b": shown})

    @property
    def image(self):
        return np.zeros(self.meta.shape, np.float32)

    @property
    def label(self):
        label = np.zeros(self.meta.shape, np.uint16)
        label[:, 0, :2], label[:, 1, :2] = 1, 2
        return label


class Weighing(Everything):
    """Notes the most encoded slices that were alive at once."""

    def __init__(self):
        super().__init__()
        self.alive = self.most = 0

    def query(self, images):
        encoded = Encoded(torch.zeros(len(images), 8, 2, 2), torch.zeros(len(images), 8, 2, 2))
        self.alive += len(images)
        self.most = max(self.most, self.alive)
        weakref.finalize(encoded, self.let_go, len(images))
        return encoded

    def bind(self, encoded, masks):
        return Support(None, torch.from_numpy(masks)[None])

    def let_go(self, count):
        self.alive -= count


@pytest.mark.parametrize("tall", ["query", "support"])
def test_encoded_slices_do_not_grow_with_the_volume(tall, tmp_path):
    most = []
    for slices in (100, 400):
        sizes = {"query": 100, "support": 100} | {tall: slices}
        query = Tall(tmp_path / "q", sizes["query"])
        supports = [[Tall(tmp_path / name, sizes["support"])] for name in "xyz"]
        predictor = Weighing()
        segment_query(
            {"all": predictor},
            query,
            supports,
            organs={"a": 1, "b": 2},
            settings=EvaluateSettings(batch=8),
            watches=[None] * 3,
        )
        most.append(predictor.most)
    assert most[0] == most[1] <= 2 * 8  # a batch, and the one that follows it
