"""What a module on a map costs: multiply-adds, memory and time.

Multiply-adds are those of matrix products and convolutions in one forward pass, half of what
torch.utils.flop_counter counts. Sums, pooling, softmax, norms, products element by element and
moving values (unfold, fold) are not among them. They are counted on the meta device, where
`scaled_dot_product_attention` is the two products it stands for; fused kernels for the CPU are
unknown to the counter.

Memory is the largest sum, at any moment of one forward and backward pass, of what the pass has
allocated and not freed yet: activations, scratch space, and the gradients of weights and map. The
weights and the map themselves are not in it. The allocator says so: on CUDA its own peak, on the
CPU the events of torch.profiler.
"""

import copy
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from catnet.types import Context, Features


@dataclass(frozen=True)
class Cost:
    """Counted for one forward pass; memory (bytes) and time (seconds) also for the backward."""

    parameters: int
    multiply_adds: int
    peak_bytes: int
    seconds: tuple[float, ...]


def measure(module: nn.Module, x: Features, *, repeat: int) -> Cost:
    """The cost of `module` on `x`, its time `repeat` times after one pass to warm up."""
    step = pass_through(module, x, weights=module.parameters())
    step()
    return Cost(
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=multiply_adds(module, x),
        peak_bytes=peak_bytes(step, x.device),
        seconds=tuple(seconds(step, x.device) for _ in range(repeat)),
    )


def pass_through(
    forward: Callable[[Tensor], Tensor], x: Features, *, weights: Iterable[Tensor]
) -> Callable[[], None]:
    """One forward and backward pass of a map to a map, which leaves no gradient behind."""
    leaves = [x.detach().requires_grad_(), *weights]
    gradient = torch.ones_like(x)

    def step() -> None:
        forward(leaves[0]).backward(gradient)
        for leaf in leaves:
            leaf.grad = None

    return step


def multiply_adds(module: nn.Module, x: Features, context: Context | None = None) -> int:
    """Those of matrix products and convolutions in one forward pass; nothing is computed."""
    maps = [x] if context is None else [x, context]
    elsewhere = copy.deepcopy(module).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        elsewhere(*(part.to("meta") for part in maps))
    return counter.get_total_flops() // 2


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """The most that `step` holds at a time of what it allocates itself."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns())
    return max(accumulate(change.nbytes() for change in changes), default=0)


def seconds(step: Callable[[], None], device: torch.device) -> float:
    """How long `step` takes, until the device is done with it."""
    synchronize(device)
    start = time.perf_counter()
    step()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait for what a GPU still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
