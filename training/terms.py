"""Loss terms: one value a sample, reduced over the global batch, so that splits over micro-batches and processes do not matter."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.streams import Streams


@dataclass
class Term:
    """One term of a phase's loss: weight * sum(count * value) / sum(count) over the global batch.

    ``value`` [B]; ``count`` [B] or None for ones; ``pixels`` [B] what it looked at, for the log; ``weight`` holds schedule and lazy gain.
    """

    name: str
    value: Tensor
    weight: float = 1.0
    count: Tensor | None = None
    pixels: Tensor | None = None

    def total_count(self) -> Tensor:
        """Sum of the counts in this micro-batch."""
        return self.value.new_tensor(float(len(self.value))) if self.count is None else self.count.detach().sum()

    def share(self, total: Tensor | float) -> Tensor:
        """This micro-batch's part of the weighted loss, given the global batch's count; 0 when that is 0."""
        counted = self.value if self.count is None else self.value * self.count.to(self.value)
        total = torch.as_tensor(total, dtype=self.value.dtype, device=self.value.device)
        return self.weight * counted.sum() / total.clamp_min(torch.finfo(self.value.dtype).tiny)


@dataclass
class MicroBatch:
    """The samples that one forward pass handles: a slice of the global batch.

    ``number`` counts the slices of this process; ``real`` [b,3,H,W] in [-1,1]; ``labels`` [b,25] of the real images.
    """

    number: int
    streams: Streams
    real: Tensor
    labels: Tensor | None
    images_seen: int
    step: int

    def __len__(self) -> int:
        return len(self.streams.indices)
