"""Floating-point operations of a training episode, and how near training comes to the machine.

torch.utils.flop_counter counts matrix products and convolutions, two operations a multiply-add. It
does not know the CPU's fused attention, which is added here:

    forward 4 n m c,    backward 10 n m c      (n queries, m keys, c channels over all heads)

The backward pass computes the weights again, hence five products instead of four.
"""

from dataclasses import dataclass

import torch
from torch import Size
from torch.utils.flop_counter import FlopCounterMode

from catnet.bench.sides import Side

FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention_operations(query: Size, key: Size, *rest: object, **options: object) -> int:
    """Two products of queries (b, heads, n, d) with keys (b, heads, m, d)."""
    batch, heads, tokens, channels = query
    return 4 * batch * heads * tokens * key[2] * channels


def backward_operations(
    gradient: Size, query: Size, key: Size, *rest: object, **options: object
) -> int:
    """Five such products."""
    return attention_operations(query, key) * 5 // 2


@dataclass(frozen=True)
class Operations:
    """Of one training episode, forward and backward."""

    forward: int
    backward: int

    @property
    def total(self) -> int:
        """Of both."""
        return self.forward + self.backward


def count_operations(side: Side) -> Operations:
    """Count those of an episode of a side; its weights stay as they are."""
    episode = side.draw(0)
    with counter() as forward:
        loss = side.forward(episode)
    with counter() as backward:
        loss.backward()
    return Operations(
        forward.get_total_flops() // side.batch, backward.get_total_flops() // side.batch
    )


def counter() -> FlopCounterMode:
    """Counts what runs within it."""
    return FlopCounterMode(
        display=False,
        custom_mapping={FUSED: attention_operations, FUSED_BACKWARD: backward_operations},
    )
