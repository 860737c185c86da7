"""An episode: the only thing that data, augmentation and model share."""

from dataclasses import dataclass, fields

import torch

from catnet.types import Images, Map, SupportImages, SupportMasks


@dataclass(frozen=True)
class Episode:
    """A batch of few-shot problems: `s` support slices with masks of one class, one query slice.

    support       (b, s, 1, h, w) z-scored slices
    support_mask  (b, s, h, w)    in {0, 1}
    query         (b, 1, h, w)    z-scored slices
    query_mask    (b, h, w)       in {0, 1}; the answer, which the network itself never reads
    """

    support: SupportImages
    support_mask: SupportMasks
    query: Images
    query_mask: Map

    def to(self, device: torch.device | str) -> "Episode":
        """The same episode on another device."""
        moved = (getattr(self, field.name).to(device, non_blocking=True) for field in fields(self))
        return Episode(*moved)

    def pin_memory(self) -> "Episode":
        """The same episode where a GPU can fetch it by itself."""
        return Episode(*(getattr(self, field.name).pin_memory() for field in fields(self)))

    def __getitem__(self, which: slice) -> "Episode":
        """Some episodes of the batch."""
        return Episode(*(getattr(self, field.name)[which] for field in fields(self)))

    def __len__(self) -> int:
        return self.query.shape[0]
