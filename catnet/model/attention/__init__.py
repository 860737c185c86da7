"""The attention zoo: every mechanism by name, one file a paper, one contract.

`forward(x, context=None) -> like x` on (b, c, h, w); without a context a mechanism attends to `x`.
"""

import difflib
import inspect
from collections.abc import Mapping

from torch import Tensor

from catnet.errors import UserError
from catnet.model.attention.cbam import CBAM
from catnet.model.attention.cloformer import CloAttention
from catnet.model.attention.context import GlobalContext
from catnet.model.attention.double import DoubleAttention
from catnet.model.attention.eca import EfficientChannelAttention
from catnet.model.attention.gsop import GSoP
from catnet.model.attention.identity import NoAttention
from catnet.model.attention.layers import Mechanism
from catnet.model.attention.masked import MaskedAttention
from catnet.model.attention.nonlocal_block import NonLocal
from catnet.model.attention.outlook import OutlookAttention
from catnet.model.attention.refiner import Refiner
from catnet.model.attention.squeeze import SqueezeExcitation
from catnet.model.attention.stripe import StripeAttention
from catnet.model.attention.twins import SpatiallySeparableAttention
from catnet.model.attention.twins_gsa import GlobalSubsampledAttention
from catnet.model.attention.twins_lsa import LocallyGroupedAttention

ATTENTION: dict[str, type[Mechanism]] = {
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
    "none": NoAttention,
    "nonlocal": NonLocal,
    "outlook": OutlookAttention,
    "refiner": Refiner,
    "se": SqueezeExcitation,
    "stripe": StripeAttention,
}


def build_attention(name: str, dim: int, options: Mapping[str, object]) -> Mechanism:
    """The mechanism `name` for `dim` channels.

    Raises `UserError` for an unknown name, which lists the known ones, and for options that the
    mechanism does not have or cannot take, which lists those it has.
    """
    mechanism = find(name)
    known = options_of(mechanism)
    for option in options:
        if option not in known:
            raise UserError(f"attention {name!r} has no option {option!r}{among(option, known)}")
    try:
        return mechanism(dim, **options)
    except TypeError as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise UserError(f"attention {name!r} cannot be built with {given}: {error}") from None


def build_cross_attention(name: str, dim: int, options: Mapping[str, object]) -> Mechanism:
    """As `build_attention`, for the cross place; raises `UserError` for one without that form."""
    if not find(name).cross:
        able = ", ".join(sorted(key for key, kind in ATTENTION.items() if kind.cross))
        raise UserError(f"attention {name!r} has no cross form; those that have: {able}")
    return build_attention(name, dim, options)


def convert(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The authors' trained weights of a mechanism, under our parameter names.

    Raises `UserError` where the mechanism has no published implementation to convert from.
    """
    mechanism = find(name)
    if not hasattr(mechanism, "convert"):
        raise UserError(f"attention {name!r} has no authors' weights to convert")
    return mechanism.convert(state)


def find(name: str) -> type[Mechanism]:
    """The class of a mechanism; raises `UserError` for an unknown name."""
    if name not in ATTENTION:
        raise UserError(f"attention {name!r} is unknown{among(name, ATTENTION)}")
    return ATTENTION[name]


def options_of(mechanism: type[Mechanism]) -> dict[str, object]:
    """The options of a mechanism and their defaults."""
    parameters = inspect.signature(mechanism.__init__).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def among(name: str, known: Mapping[str, object]) -> str:
    """The nearest known name, and all of them."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"
