"""Predictors that know better than any network."""

import numpy as np
import torch

from catnet.evaluate.predictors import CopyPredictor, Support
from catnet.model.encoder import Encoded
from catnet.model.ops import for_queries


class Truth:
    """Knows the label of every slice by its pixels."""

    def __init__(self, cases):
        self.labels = {
            image.tobytes(): np.asarray(label)
            for case in cases
            for image, label in zip(case.image, case.label, strict=True)
        }

    def support(self, images, masks):
        return self.bind(self.query(images), masks)

    def bind(self, encoded, masks):
        (number,) = np.unique(encoded.feature[0, 0].numpy()[masks[0] > 0])
        return Support(None, torch.full((1, 1, 1, 1), float(number)))

    def query(self, images):
        labels = np.stack([self.labels[image.tobytes()] for image in images]).astype(np.float32)
        maps = torch.from_numpy(labels)[:, None]
        return Encoded(maps, maps)

    def segment(self, support, query, count):
        assert len(query.feature) == count
        wanted = for_queries(support.mask[:, 0], support.counted(count))
        return (query.feature[:, 0] == wanted).float().numpy()


class Everything(CopyPredictor):
    """Sees the organ everywhere; or, with a probability of 0, nowhere."""

    def __init__(self, probability=1.0):
        self.probability = probability

    def segment(self, support, query, count):
        return np.full((count, *support.mask.shape[-2:]), self.probability, np.float32)
