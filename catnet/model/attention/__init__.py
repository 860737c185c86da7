"""The attention zoo: every mechanism by name, one file a paper, one contract.

`forward(x, context=None) -> like x` on (b, c, h, w); without a context a mechanism attends to `x`.
"""

import difflib

from torch import nn

from catnet.errors import UserError
from catnet.model.attention.cbam import CBAM
from catnet.model.attention.cloformer import CloAttention
from catnet.model.attention.context import GlobalContext
from catnet.model.attention.double import DoubleAttention
from catnet.model.attention.eca import EfficientChannelAttention
from catnet.model.attention.gsop import GSoP
from catnet.model.attention.masked import MaskedAttention
from catnet.model.attention.nonlocal_block import NonLocal
from catnet.model.attention.outlook import OutlookAttention
from catnet.model.attention.refiner import Refiner
from catnet.model.attention.squeeze import SqueezeExcitation
from catnet.model.attention.stripe import StripeAttention
from catnet.model.attention.twins import SpatiallySeparableAttention
from catnet.model.attention.twins_gsa import GlobalSubsampledAttention
from catnet.model.attention.twins_lsa import LocallyGroupedAttention

ATTENTION: dict[str, type[nn.Module]] = {
    "a2": DoubleAttention,
    "cbam": CBAM,
    "clo": CloAttention,
    "eca": EfficientChannelAttention,
    "gc": GlobalContext,
    "gsa": GlobalSubsampledAttention,
    "gsop": GSoP,
    "lsa": LocallyGroupedAttention,
    "lsa-gsa": SpatiallySeparableAttention,
    "masked": MaskedAttention,
    "none": nn.Identity,
    "nonlocal": NonLocal,
    "outlook": OutlookAttention,
    "refiner": Refiner,
    "se": SqueezeExcitation,
    "stripe": StripeAttention,
}


def build_attention(name: str, dim: int, options: dict[str, object]) -> nn.Module:
    """The mechanism `name` for `dim` channels; raises `UserError` that lists the known names."""
    if name not in ATTENTION:
        nearest = difflib.get_close_matches(name, ATTENTION, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(
            f"attention {name!r} is unknown{hint} (known: {', '.join(sorted(ATTENTION))})"
        )
    return ATTENTION[name](dim, **options)
