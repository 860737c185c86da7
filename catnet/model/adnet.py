"""ADNet: the foreground is what is not an anomaly to one prototype; the background has none.

Paper: "Anomaly Detection-Inspired Few-Shot Medical Image Segmentation Through Self-Supervision With
Supervoxels", Hansen, Gautam, Jenssen and Kampffmeyer, Medical Image Analysis 2022,
arXiv 2203.02048.

    S = -20 cos(F_q, p),   p = masked_average(F_s, M_s)
    M = 1 - sigmoid(0.5 (S - T)),   one learnt T, which starts at -10
    L = L_seg + a L_align + T / 20;   a low T keeps the foreground tight

`head.threshold` is -T.

Differs from the authors' code: the encoder of this bench for a dilated ResNet-101 with COCO
weights; L_seg is cross entropy and soft Dice, as for every network here, where theirs is a cross
entropy with the background weighed 0.1; prototypes average over the foreground of all shots, and
the mask goes to the features, not the features to the mask.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from catnet.config import ModelSettings
from catnet.model.prototype import SCALE, PrototypeHead, PrototypeNetwork


class ADNet(PrototypeNetwork):
    """One foreground prototype and a learnt threshold of the anomaly score."""

    name: ClassVar[str] = "adnet"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings, head=PrototypeHead(score="threshold"))

    def penalty(self) -> Float[Tensor, ""]:
        """T / 20."""
        return -self.head.threshold / SCALE
