"""Slices of many cases by their place: read where they lie on disk, or held on a device.

    take(name, places)             places (..., 2) of whole numbers: which case, which slice of it
    masks(name, places, labels)    where the slices of an episode have its label

Both ways give the same numbers. On disk nothing is read but the slices asked for; on a device all
cases take their room once (four bytes a voxel, for images and labels each), and no step waits for
the host.
"""

from collections import OrderedDict
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Int64
from numpy import ndarray
from torch import Tensor

from catnet.data.store import Case

OPEN = 256  # arrays that are kept open at once; each holds a file descriptor

Places = Int64[Tensor, "*n two"]


@runtime_checkable
class Slices(Protocol):
    """Where the pixels of training episodes come from."""

    device: torch.device
    size: tuple[int, int]

    def take(self, name: str, places: Places) -> Tensor:
        """Slices (..., h, w) of an array of the cases: float32 images, int32 labels."""

    def masks(
        self, name: str, places: Int64[Tensor, "b n 2"], labels: Int64[Tensor, " b"]
    ) -> Tensor:
        """Where slices have the label of their episode: float32 (b, n, h, w) in {0, 1}."""


class MappedSlices:
    """Slices of memory-mapped arrays, which stay open while there are not too many."""

    def __init__(self, cases: tuple[Case, ...]) -> None:
        self.cases = cases
        self.device = torch.device("cpu")
        self.size = cases[0].meta.shape[1:]
        self.opened: OrderedDict[tuple[str, int], ndarray] = OrderedDict()

    def take(self, name: str, places: Places) -> Tensor:
        """Read the slices one after the other into one tensor."""
        kind = np.float32 if name == "image" else np.int32
        taken = np.empty((*places.shape[:-1], *self.size), kind)
        slices = taken.reshape(-1, *self.size)
        for pixels, (case, row) in zip(slices, places.flatten(0, -2).tolist(), strict=True):
            pixels[:] = self.array(name, case)[row]
        return torch.from_numpy(taken)

    def masks(
        self, name: str, places: Int64[Tensor, "b n 2"], labels: Int64[Tensor, " b"]
    ) -> Tensor:
        """Compare the slices where they lie."""
        taken = np.empty((*places.shape[:-1], *self.size), np.float32)
        for masks, rows, label in zip(taken, places.tolist(), labels.tolist(), strict=True):
            for mask, (case, row) in zip(masks, rows, strict=True):
                np.equal(self.array(name, case)[row], label, out=mask)
        return torch.from_numpy(taken)

    def array(self, name: str, case: int) -> ndarray:
        """A case's array; raises `UserError` where it cannot be read."""
        key = name, case
        if key not in self.opened:
            while len(self.opened) >= OPEN:
                self.opened.popitem(last=False)
            self.opened[key] = np.asarray(self.cases[case].array(name))
        self.opened.move_to_end(key)
        return self.opened[key]


class ResidentSlices:
    """All slices of the cases on one device, one below the other."""

    def __init__(
        self, cases: tuple[Case, ...], names: tuple[str, ...], device: torch.device
    ) -> None:
        self.device = device
        self.size = cases[0].meta.shape[1:]
        depths = torch.tensor([case.depth for case in cases])
        self.first = (depths.cumsum(0) - depths).to(device)
        mapped = MappedSlices(cases)
        self.stacks = {name: mapped.take(name, everywhere(depths)).to(device) for name in names}

    def take(self, name: str, places: Places) -> Tensor:
        """Gather the slices on the device; the host is not waited for."""
        case, row = places.to(self.device, non_blocking=True).unbind(dim=-1)
        return self.stacks[name][self.first[case] + row]

    def masks(
        self, name: str, places: Int64[Tensor, "b n 2"], labels: Int64[Tensor, " b"]
    ) -> Tensor:
        """Compare what is gathered."""
        labels = labels.to(self.device, non_blocking=True)
        return (self.take(name, places) == rearrange(labels, "b -> b 1 1 1")).float()


def everywhere(depths: Int64[Tensor, " cases"]) -> Places:
    """Every slice of every case, in order."""
    case = torch.repeat_interleave(torch.arange(len(depths)), depths)
    row = torch.cat([torch.arange(depth) for depth in depths.tolist()])
    return torch.stack([case, row], dim=-1)


def resident_bytes(cases: tuple[Case, ...]) -> int:
    """What `ResidentSlices` of images and one kind of label take on a device."""
    return sum(2 * 4 * int(np.prod(case.meta.shape)) for case in cases)
