"""Where a run is computed: one process, or one of several that torchrun started.

`torchrun --nproc-per-node N -m catnet train ...` (or `machine.devices=N`, which calls it) starts
the processes; torch's DistributedDataParallel averages their gradients. Each process normalizes
batches by the statistics of its own share; those that are kept for evaluation are the first one's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from catnet.allocator import keep_freed_memory
from catnet.config import MachineSettings, Run
from catnet.errors import UserError


@dataclass(frozen=True)
class Engine:
    """This process's device, and its place among the processes of the run."""

    device: torch.device
    rank: int
    world: int
    mixed: bool
    compiled: bool = False

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def place(self, module: nn.Module) -> nn.Module:
        """`module` on the device, its channels last, as convolutions are quickest."""
        return module.to(self.device, memory_format=torch.channels_last)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, its gradients averaged over the processes, compiled where the run asks."""
        if self.world > 1:
            ids = [self.device.index] if self.device.type == "cuda" else None
            module = DistributedDataParallel(module, device_ids=ids)
        return torch.compile(module) if self.compiled else module

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Raises `UserError` where the compiler of `machine.compile` fails."""
        try:
            yield
        except RuntimeError as error:
            if not (self.compiled and isinstance(error, torch._dynamo.exc.TorchDynamoException)):
                raise
            why = str(error).strip().partition("\n")[0]
            raise UserError(
                f"machine.compile=true: torch.compile cannot compile the step ({why}); install a "
                "C++ compiler such as g++, or leave machine.compile false"
            ) from None

    def autocast(self) -> torch.autocast:
        """Mixed precision in bfloat16 where the run asks for it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed)

    def mean(self, values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The mean over the processes, each of which must ask for it at the same step."""
        if self.world > 1:
            distributed.all_reduce(values)
        return values / self.world

    def stop(self) -> None:
        """Wait for the others and part from them."""
        if self.world > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def start_engine(run: Run) -> Engine:
    """Join the processes of the run; raises `UserError` where they do not fit its settings."""
    set_up_cpu(run.machine)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    check_share(run, processes=world)
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    device = choose_device(run.machine, local=local, processes=here)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    rank = distributed.get_rank() if world > 1 else 0
    mixed = run.train.precision == "bfloat16"
    return Engine(device, rank, world, mixed=mixed, compiled=run.machine.compile)


def set_up_cpu(machine: MachineSettings) -> None:
    """Compute with so many CPU threads, in memory that the process keeps.

    On a busy machine one thread is faster than several that wait.
    """
    keep_freed_memory()
    if machine.threads:
        torch.set_num_threads(machine.threads)


def check_share(run: Run, *, processes: int) -> None:
    """Raise `UserError` where the processes cannot share a step's episodes evenly."""
    if run.train.batch % processes:
        raise UserError(
            f"train.batch {run.train.batch} cannot be shared by {processes} processes; make it a "
            f"multiple of {processes}"
        )


def choose_device(machine: MachineSettings, *, local: int = 0, processes: int = 1) -> torch.device:
    """The device of process number `local` of the `processes` on this machine, one kind for all."""
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if machine.accelerator == "gpu" and found < processes:
        raise UserError(
            f"machine.accelerator=gpu for {processes} processes, but torch sees {found} GPUs here; "
            "use cpu or auto, or lower machine.devices"
        )
    if machine.accelerator == "cpu" or found < processes:
        return torch.device("cpu")
    return torch.device("cuda", local)
