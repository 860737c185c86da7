"""The attention zoo: every mechanism by name, one file a paper, one contract.

`forward(x, context=None) -> like x` on (b, c, h, w); without a context a mechanism attends to `x`.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from catnet.config import ModelSettings
from catnet.errors import UserError
from catnet.model.attention.cbam import CBAM
from catnet.model.attention.cloformer import CloAttention
from catnet.model.attention.context import GlobalContext
from catnet.model.attention.double import DoubleAttention
from catnet.model.attention.eca import EfficientChannelAttention
from catnet.model.attention.gsop import GSoP
from catnet.model.attention.identity import NoAttention
from catnet.model.attention.layers import Mechanism, check_place
from catnet.model.attention.masked import MaskedAttention
from catnet.model.attention.nonlocal_block import NonLocal
from catnet.model.attention.outlook import OutlookAttention
from catnet.model.attention.refiner import Refiner
from catnet.model.attention.squeeze import SqueezeExcitation
from catnet.model.attention.stripe import StripeAttention
from catnet.model.attention.twins import SpatiallySeparableAttention
from catnet.model.attention.twins_gsa import GlobalSubsampledAttention
from catnet.model.attention.twins_lsa import LocallyGroupedAttention
from catnet.model.options import among, check_dim, check_options, options_of
from catnet.model.published import check_fit, check_published

__all__ = [
    "ATTENTION",
    "build_attention",
    "build_cross_attention",
    "check_places",
    "convert",
    "find",
    "load_published",
    "options_of",
]

ATTENTION: dict[str, type[Mechanism]] = {
    "masked": MaskedAttention,
    "nonlocal": NonLocal,
    "gsa": GlobalSubsampledAttention,
    "lsa": LocallyGroupedAttention,
    "lsa-gsa": SpatiallySeparableAttention,
    "outlook": OutlookAttention,
    "clo": CloAttention,
    "stripe": StripeAttention,
    "refiner": Refiner,
    "a2": DoubleAttention,
    "gc": GlobalContext,
    "gsop": GSoP,
    "cbam": CBAM,
    "se": SqueezeExcitation,
    "eca": EfficientChannelAttention,
    "none": NoAttention,
}


def build_attention(name: str, dim: int, options: Mapping[str, object]) -> Mechanism:
    """The mechanism `name` for `dim` channels.

    Raises `UserError` for an unknown name, which lists the known ones, for a number of channels
    that is none, for an option that the mechanism does not have, which lists those it has, and for
    a value that an option cannot take.
    """
    mechanism = find(name)
    check_dim(name, dim)
    return mechanism(dim, **check_options(name, mechanism, options))


def build_cross_attention(name: str, dim: int, options: Mapping[str, object]) -> Mechanism:
    """As `build_attention`, for the cross place; raises `UserError` for one without that form."""
    if not find(name).cross:
        able = ", ".join(key for key, kind in ATTENTION.items() if kind.cross)
        raise UserError(f"attention {name!r} has no cross form; those that have: {able}")
    return build_attention(name, dim, options)


def check_places(settings: ModelSettings) -> None:
    """Raise `UserError` unless both places of CMAT can be built, whether or not a round runs.

    Nothing is allocated, and no random number is drawn.
    """
    with torch.device("meta"):
        check_place(build_attention(settings.attention, settings.dim, settings.attention_options))
        check_place(
            build_cross_attention(
                settings.cross_attention, settings.dim, settings.cross_attention_options
            )
        )


def convert(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' trained weights of a mechanism, under our parameter names.

    Every name is taken, but for those that a mechanism's `convert` lists as of no effect here.
    Raises `UserError` where the mechanism has no published implementation to convert from, and for
    a parameter that is missing, unknown or of another shape.
    """
    mechanism = find(name)
    if not hasattr(mechanism, "convert"):
        raise UserError(f"attention {name!r} has no authors' weights to convert")
    try:
        check_published(state, mechanism.published)
        return mechanism.convert(dict(state))
    except UserError as error:
        raise UserError(f"attention {name!r}, authors' weights: {error}") from None


def load_published(mechanism: Mechanism, state: Mapping[str, Tensor]) -> None:
    """Put the authors' trained weights into a mechanism that was built with their options.

    Raises `UserError` as `convert` does, and where a parameter of the mechanism is left without a
    weight or is of another shape. Layers that only ours has (`new_layers`) stay as they are.
    """
    (name,) = (key for key, kind in ATTENTION.items() if kind is type(mechanism))
    ours = convert(name, state)
    try:
        check_fit(ours, mechanism.state_dict(), new=mechanism.new_layers)
    except UserError as error:
        raise UserError(f"attention {name!r}, authors' weights: {error}") from None
    mechanism.load_state_dict(ours, strict=False)


def find(name: str) -> type[Mechanism]:
    """The class of a mechanism; raises `UserError` for an unknown name."""
    if not isinstance(name, str) or name not in ATTENTION:
        raise UserError(f"attention {name!r} is unknown{among(name, ATTENTION)}")
    return ATTENTION[name]
