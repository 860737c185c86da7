"""PANet: a prototype of the foreground and one of the background, and the nearer one wins.

Paper: "PANet: Few-Shot Image Semantic Segmentation with Prototype Alignment", Wang, Liew, Zou, Zhou
and Feng, ICCV 2019, arXiv 1908.06391.

    p_f = masked_average(F_s, M_s),   p_b = masked_average(F_s, 1 - M_s)
    M   = softmax over f and b of 20 cos(F_q, p)
    L   = L_seg + a L_align, which segments the support with the prototypes of the predicted query

Differs from the authors' code: the encoder of this bench for a VGG-16; prototypes average over the
foreground of all shots, not over the shots' averages; the mask goes to the features, not the
features to the mask; L_seg has a soft Dice beside the cross entropy, as for every network here.
"""

from typing import ClassVar

from catnet.config import ModelSettings
from catnet.model.prototype import PrototypeHead, PrototypeNetwork


class PANet(PrototypeNetwork):
    """Two prototypes by masked averages, a softmax over the two cosines."""

    name: ClassVar[str] = "panet"

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings, head=PrototypeHead(score="softmax"))
