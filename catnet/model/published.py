"""Published weights under our names: every name is taken or told, every shape is as expected.

A mechanism says in `published` which parameters the authors' code has at least, by regular
expressions, and of which shape: `{"q.weight": "c c", "kv.weight": "2*c c"}`. A letter stands for
one size throughout.
"""

import re
from collections.abc import Iterable, Mapping

from einops import EinopsError, rearrange
from torch import Tensor

from catnet.errors import UserError

State = dict[str, Tensor]


def rename(state: State, names: Mapping[str, str]) -> State:
    """The parameters of layers called after `names`: from the authors' names to ours.

    Raises `UserError` for a layer that is not among them, and for two names of one layer.
    """
    ours = {}
    for name, tensor in state.items():
        layer, _, parameter = name.rpartition(".")
        if layer not in names:
            raise UserError(f"{name} is unknown{hint(layer, names)}")
        if (new := f"{names[layer]}.{parameter}") in ours:
            raise UserError(f"{name} stands for {new}, as another one does; give one of them")
        ours[new] = tensor
    return ours


def hint(layer: str, names: Iterable[str]) -> str:
    """What may be meant by a layer's name: a known one behind a prefix, or one of all."""
    for known in filter(None, names):
        if layer.endswith(f".{known}"):
            return f"; cut the prefix {layer.removesuffix(known)!r} from all names"
    return f"; layers are {', '.join(filter(None, names))}"


def reshape(name: str, tensor: Tensor, pattern: str, **sizes: int) -> Tensor:
    """As einops' `rearrange`; raises `UserError` for a parameter that the pattern does not fit."""
    try:
        return rearrange(tensor, pattern, **sizes)
    except EinopsError:
        given = "".join(f", {letter}={size}" for letter, size in sizes.items())
        raise UserError(
            f"{name} has the shape {size_of(tensor)}; expected is {pattern.partition(' ->')[0]}"
            f"{given}"
        ) from None


def check_published(state: Mapping[str, object], expected: Mapping[str, str]) -> None:
    """Raise `UserError` where an expected parameter is missing or of another shape."""
    sizes: dict[str, int] = {}
    for pattern, shape in expected.items():
        found = [name for name in state if re.fullmatch(pattern, str(name))]
        if not found:
            raise UserError(missing(state, pattern, shape))
        for name in found:
            check_shape(name, state[name], shape, sizes=sizes)


def missing(state: Iterable[str], pattern: str, shape: str) -> str:
    """What to say of an expected parameter that is not there."""
    plain = re.sub(r"\(.*?\)\?|\\", "", pattern)
    for name in map(str, state):
        if behind := re.fullmatch(rf"(.+\.){pattern}", name):
            return f"{name} is unknown; cut the prefix {behind[1]!r} from all names"
    return f"{plain} is missing; expected is a parameter of the shape {shape}"


def check_shape(name: str, tensor: object, shape: str, *, sizes: dict[str, int]) -> None:
    """Raise `UserError` unless a parameter has a shape, whose letters are bound as they appear."""
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name} is no tensor but {type(tensor).__name__}; give a state dict")
    before, parts = dict(sizes), shape.split()
    if len(parts) != tensor.ndim or not all(
        bind(part, size, sizes=sizes) for part, size in zip(parts, tensor.shape, strict=True)
    ):
        used = ", ".join(f"{key}={size}" for key, size in before.items() if key in shape)
        raise UserError(
            f"{name} has the shape {size_of(tensor)}; expected is {shape}"
            f"{f' with {used}' if used else ''}"
        )


def bind(part: str, size: int, *, sizes: dict[str, int]) -> bool:
    """Whether `size` is what `3`, `c` or `2*c` stands for; an unknown letter is learnt from it."""
    factor, _, letter = part.rpartition("*")
    if letter.isdigit():
        return size == int(letter)
    count, rest = divmod(size, int(factor or 1))
    return rest == 0 and sizes.setdefault(letter, count) == count


def check_fit(ours: State, own: Mapping[str, Tensor], *, new: tuple[str, ...]) -> None:
    """Raise `UserError` unless the weights are those of a mechanism, but for the `new` layers."""
    for name, tensor in own.items():
        if name not in ours and name.rpartition(".")[0] not in new:
            raise UserError(
                f"{name} ({size_of(tensor)}) is not among the weights; build the mechanism with "
                "the authors' options"
            )
    for name, tensor in ours.items():
        if name not in own or own[name].shape != tensor.shape:
            there = f"is {size_of(own[name])} here" if name in own else "does not exist here"
            raise UserError(
                f"{name}, {size_of(tensor)} in the weights, {there}; build the mechanism with the "
                "authors' number of channels and options"
            )


def size_of(tensor: Tensor) -> str:
    """`32 x 16`; `one number` for a scalar."""
    return " x ".join(map(str, tensor.shape)) or "one number"
