"""What the mechanisms saw while a network ran: recorded by hooks, the forward pass stays as it is.

Within `traced(model)` the last forward pass is kept: the query feature F_0 that MIFE gave, and for
every round i the feature F_i that it left and how its mechanisms were called for the query. From a
call follows the attention map that was at work.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor, nn

from catnet.config import ModelSettings
from catnet.errors import UserError
from catnet.model.attention import ATTENTION, find
from catnet.model.catnet import CATNet
from catnet.model.cmat import Round, Streams
from catnet.types import Features, Map


@dataclass(frozen=True)
class Call:
    """A mechanism and what it was called with."""

    mechanism: nn.Module
    given: tuple[object, ...]
    options: dict[str, object]

    def attention_map(self) -> Float[Tensor, "b heads n m"]:
        """From each of n query positions to each of m context positions, head by head.

        Raises `UserError` for a mechanism that has no head with a map.
        """
        found = self.mechanism.attention_map(*self.given, **self.options)
        if not found.shape[1]:
            name = type(self.mechanism).__name__
            raise UserError(f"{name} with these options has no head with a map; give it one")
        return found


@dataclass
class RoundTrace:
    """One round: the streams that it was given, its calls for the query, the feature it left.

    `receives` (b, h, w) is one where the cross attention added to the query, zero where a mask or
    `model.direction` kept it away. A feed-forward that mixes neighbors (`model.ffn=conv`) may hand
    on what they received to a position where it is zero.
    """

    streams: Streams
    itself: Call | None = None
    across: Call | None = None
    receives: Map | None = None
    left: Features | None = None


@dataclass
class Trace:
    """The last forward pass: F_0 and the rounds."""

    first: Features | None = None
    rounds: list[RoundTrace] = field(default_factory=list)

    @property
    def features(self) -> tuple[Features, ...]:
        """F_0 .. F_N of the query."""
        return self.first, *(one.left for one in self.rounds)

    def begin(self, mife: nn.Module, given: tuple, result: tuple) -> None:
        """A new pass: what MIFE gave."""
        self.first, self.rounds = result[1], []

    def open_round(self, cmat: nn.Module, given: tuple) -> None:
        """What a round is given."""
        self.rounds.append(RoundTrace(*given))

    def look_itself(self, place: nn.Module, given: tuple, result: tuple) -> None:
        """A self-attention; where both streams share one, the query comes last and remains."""
        x, previous = given
        carries = place.attention.carries_map
        self.rounds[-1].itself = Call(place.attention, (x, None, previous) if carries else (x,), {})

    def look_across(
        self, mechanism: nn.Module, given: tuple, options: dict, result: Features
    ) -> None:
        """A cross attention; the query comes last and remains. Who receives is in `receives`."""
        weighs = {name: value for name, value in options.items() if name != "receive"}
        self.rounds[-1].across = Call(mechanism, given, weighs)

    def close_round(self, cmat: Round, given: tuple, result: tuple) -> None:
        """What a round left, and where."""
        self.rounds[-1].left = result[1]
        self.rounds[-1].receives = received(cmat, self.rounds[-1].streams)


@contextmanager
def traced(model: CATNet) -> Iterator[Trace]:
    """Record the last forward pass of `model` within the block."""
    trace = Trace()
    handles = [model.mife.register_forward_hook(trace.begin)]
    for cmat in model.cmat:
        handles += [
            cmat.register_forward_pre_hook(trace.open_round),
            (cmat.self_query or cmat.self_support).register_forward_hook(trace.look_itself),
            cmat.cross.attention.register_forward_hook(trace.look_across, with_kwargs=True),
            cmat.register_forward_hook(trace.close_round),
        ]
    try:
        yield trace
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def traced_prior(model: nn.Module) -> Iterator[list[Map]]:
    """Collect the similarity priors (b h w) that MIFE computes; none in a network without MIFE."""
    priors: list[Map] = []
    if not isinstance(model, CATNet):
        yield priors
        return
    handle = model.mife.mix_query.register_forward_pre_hook(
        lambda mix, given: priors.append(given[0][:, -1])  # the prior is its last channel
    )
    try:
        yield priors
    finally:
        handle.remove()


def received(cmat: Round, streams: Streams) -> Map:
    """One where the query's attention received from the support in a round."""
    kept = streams.query_kept
    if cmat.direction == "query_to_support":
        return torch.zeros_like(kept)
    if cmat.cross.mask_on == "queries":
        return kept
    if cmat.cross.mask_on == "none":
        return torch.ones_like(kept)
    some = reduce(streams.support_kept, "b s h w -> b 1 1", "max")
    return some.expand_as(kept)


def check_rounds(settings: ModelSettings) -> None:
    """Raise `UserError` for a network that has no rounds of CMAT to look into."""
    if settings.name != "catnet":
        raise UserError(
            f"this shows the rounds of CAT-Net, and {settings.name} has none; give a run of "
            "model.name=catnet"
        )


def has_map(name: str) -> bool:
    """Whether a mechanism of the zoo says which positions it attends to."""
    return hasattr(find(name), "attention_map")


def check_map(name: str) -> None:
    """Raise `UserError` for a mechanism without a map, which lists those that have one."""
    if not has_map(name):
        able = ", ".join(sorted(other for other in ATTENTION if has_map(other)))
        raise UserError(
            f"attention {name!r} weighs no single positions and has no map to show; those that "
            f"have: {able}"
        )
