"""What a mechanism of the zoo can be told: its options, read from its constructor.

A constructor declares an option once, `heads: Annotated[int, Field(description=...)] = 8`. From it
follow the check of a value, the sentence about a wrong one, and what `catnet zoo --options` prints.
"""

import difflib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from torch import nn

from catnet.errors import UserError

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
WIDEST = 8192  # channels, as `model.dim`
BOUNDS = {"less_than_equal", "greater_than_equal"}


@dataclass(frozen=True)
class Option:
    """One option: the type that a value must have, its default, and what it means."""

    name: str
    kind: str
    default: object
    meaning: str


def describe(mechanism: type[nn.Module]) -> tuple[Option, ...]:
    """The options of a mechanism, in the order of its constructor."""
    plain = get_type_hints(mechanism.__init__)
    return tuple(
        Option(
            name,
            kind=kind_name(plain[name]),
            default=parameter.default,
            meaning=meaning_of(parameter.annotation),
        )
        for name, parameter in parameters_of(mechanism).items()
    )


def options_of(mechanism: type[nn.Module]) -> dict[str, object]:
    """The options of a mechanism and their defaults."""
    return {name: option.default for name, option in parameters_of(mechanism).items()}


def parameters_of(mechanism: type[nn.Module]) -> dict[str, inspect.Parameter]:
    """The options of a mechanism as its constructor declares them."""
    parameters = inspect.signature(mechanism.__init__).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def kind_name(annotation: object) -> str:
    """A type as a person writes it: `int`, `Sequence[int]`."""
    text = annotation.__name__ if type(annotation) is type else repr(annotation)
    return re.sub(r"\b(?:\w+\.)+", "", text)


def meaning_of(annotation: object) -> str:
    """The description that an annotation carries; empty where it has none."""
    said = (getattr(extra, "description", None) for extra in get_args(annotation)[1:])
    return next(filter(None, said), "")


def check_dim(name: str, dim: object) -> None:
    """Raise `UserError` unless `dim` is a number of channels."""
    if type(dim) is not int or not 1 <= dim <= WIDEST:
        raise UserError(
            f"attention {name!r}: dim={dim!r} is no number of channels; give a whole number from "
            f"1 to {WIDEST}"
        )


def check_options(
    name: str, mechanism: type[nn.Module], options: Mapping[str, object]
) -> dict[str, object]:
    """The options as they are; raises `UserError` for an unknown one and for a value of no use."""
    if not isinstance(options, Mapping):
        raise UserError(f"attention {name!r}: options are `name: value` pairs, not {options!r}")
    known = parameters_of(mechanism)
    for option in options:
        if option not in known:
            raise UserError(
                f"attention {name!r} has no option {option!r} (`catnet zoo {name} --options` tells "
                f"all){among(option, known)}"
            )
    kinds = get_type_hints(mechanism.__init__)
    return {
        key: typed(known[key], value, attention=name, kind=kind_name(kinds[key]))
        for key, value in options.items()
    }


def typed(option: inspect.Parameter, value: object, *, attention: str, kind: str) -> object:
    """The value of an option; raises `UserError` where it is not as declared."""
    try:
        return TypeAdapter(option.annotation, config=STRICT).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        why = first["msg"].partition("\n")[0]
        what = "is out of all proportion" if first["type"] in BOUNDS else f"is no {kind}"
        shown = repr(value) if len(repr(value)) < 60 else f"{repr(value)[:57]}..."
        raise UserError(
            f"attention {attention!r}: {option.name}={shown} {what} "
            f"({why[:1].lower()}{why[1:]}); give one, or leave the option out"
        ) from None


def among(name: object, known: Mapping[str, object]) -> str:
    """The nearest known name, and all of them."""
    nearest = difflib.get_close_matches(name, known, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ";"
    return f"{hint} (known: {', '.join(sorted(known)) or 'none'})"
