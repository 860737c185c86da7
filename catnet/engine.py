"""Where a run is computed: one process, or one of several that torchrun started.

`torchrun --nproc-per-node N -m catnet train ...` (or `machine.devices=N`, which calls it) starts
the processes; torch's DistributedDataParallel averages their gradients.
"""

import os
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from catnet.config import MachineSettings, Run
from catnet.errors import UserError


@dataclass(frozen=True)
class Engine:
    """This process's device, and its place among the processes of the run."""

    device: torch.device
    rank: int
    world: int
    mixed: bool

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module`, its gradients averaged over the processes."""
        if self.world == 1:
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids)

    def autocast(self) -> torch.autocast:
        """Mixed precision in bfloat16 where the run asks for it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.mixed)

    def stop(self) -> None:
        """Wait for the others and part from them."""
        if self.world > 1:
            distributed.barrier()
            distributed.destroy_process_group()


def start_engine(run: Run) -> Engine:
    """Join the processes of the run; raises `UserError` where they do not fit its settings."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if run.train.batch % world:
        raise UserError(
            f"train.batch {run.train.batch} cannot be shared by {world} processes; make it a "
            f"multiple of {world}"
        )
    device = choose_device(run.machine, local=local)
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    rank = distributed.get_rank() if world > 1 else 0
    return Engine(device, rank, world, mixed=run.train.precision == "bfloat16")


def choose_device(machine: MachineSettings, *, local: int = 0) -> torch.device:
    """The device of process number `local` on this machine."""
    if machine.accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available() and local < torch.cuda.device_count():
        return torch.device("cuda", local)
    if machine.accelerator == "gpu":
        raise UserError(
            f"machine.accelerator=gpu, but torch sees {torch.cuda.device_count()} GPUs here; use "
            "cpu or auto, or lower machine.devices"
        )
    return torch.device("cpu")
