"""The attention zoo: every mechanism by name, one file a paper, one contract.

`forward(x, context=None) -> like x` on (b, c, h, w); without a context a mechanism attends to `x`.
"""

import difflib
import inspect
from collections.abc import Mapping

from pydantic import ConfigDict, TypeAdapter, ValidationError
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

STRICT = ConfigDict(strict=True, allow_inf_nan=False)


def build_attention(name: str, dim: int, options: Mapping[str, object]) -> Mechanism:
    """The mechanism `name` for `dim` channels.

    Raises `UserError` for an unknown name, which lists the known ones, for an option that the
    mechanism does not have, which lists those it has, and for a value that an option cannot take.
    """
    mechanism = find(name)
    known = parameters_of(mechanism)
    for option in options:
        if option not in known:
            raise UserError(f"attention {name!r} has no option {option!r}{among(option, known)}")
    given = {key: typed(known[key], value, attention=name) for key, value in options.items()}
    return mechanism(dim, **given)


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
    return {name: option.default for name, option in parameters_of(mechanism).items()}


def parameters_of(mechanism: type[Mechanism]) -> dict[str, inspect.Parameter]:
    """The options of a mechanism as its constructor declares them."""
    parameters = inspect.signature(mechanism.__init__).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def typed(option: inspect.Parameter, value: object, *, attention: str) -> object:
    """The value of an option; raises `UserError` where it is not of the type declared."""
    try:
        return TypeAdapter(option.annotation, config=STRICT).validate_python(value)
    except ValidationError as error:
        kind = inspect.formatannotation(option.annotation).rpartition(".")[2]
        why = error.errors()[0]["msg"].partition("\n")[0]
        raise UserError(
            f"attention {attention!r}: {option.name}={value!r} is no {kind} "
            f"({why[:1].lower()}{why[1:]}); give one, or leave the option out"
        ) from None


def among(name: str, known: Mapping[str, object]) -> str:
    """The nearest known name, and all of them."""
    nearest = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"
