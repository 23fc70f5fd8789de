"""Averages: of the generator's weights over time, whose samples are what is shown and measured, and of what forward passes track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .processes import sum_tensors


def average_decay(batch: int, images_before: int, half_life: float, ramp_up: float | None) -> float:
    """Return the share of the old average that a step keeps: 0.5^(batch / h), h = min(half_life, ramp_up * images_before).

    EG3D's rule: ``half_life`` in images; ``ramp_up`` shortens it at the start of a run, None switches that off; ``images_before``
    counts the real images before this batch.

    >>> average_decay(10, 1_000_000, 10, None)
    0.5
    >>> average_decay(10, 0, 10, 0.05)
    0.0
    """
    horizon = half_life if ramp_up is None else min(half_life, ramp_up * images_before)
    return 0.5 ** (batch / max(horizon, 1e-8))


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the current ones; buffers are copied."""
    kept: list[Tensor] = list(average.parameters())
    now: list[Tensor] = list(current.parameters())
    # average <- current + decay * (average - current)
    torch._foreach_lerp_(kept, now, 1.0 - decay)
    for old, new in zip(average.buffers(), current.buffers(), strict=True):
        old.copy_(new)


class RunningMeans:
    """Buffers that forward passes move towards a batch's mean (EG3D's ``w_avg``): moved once a step, by the mean over the global batch.

    Left to themselves they would move once a micro-batch and differ between processes: what they hold would depend on the split. Here
    every slice starts from the step's beginning, and the moves are averaged, each by its slice's share of the batch.

    >>> mean = torch.zeros(1)
    >>> means = RunningMeans([mean])
    >>> for value in (2.0, 4.0):
    ...     with means.moved(share=0.5):
    ...         _ = mean.lerp_(torch.tensor([value]), 0.5)
    >>> means.settle(None); mean.tolist()
    [1.5]
    """

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        self.buffers = list(buffers)
        self.moves = [torch.zeros_like(b) for b in self.buffers]

    @contextmanager
    def moved(self, share: float) -> Iterator[None]:
        """Note how far the buffers move inside, for a slice that is ``share`` of the global batch, and move them back."""
        before = [b.clone() for b in self.buffers]
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, start, move in zip(self.buffers, before, self.moves, strict=True):
                    move.add_(buffer - start, alpha=share)
                    buffer.copy_(start)

    @torch.no_grad()
    def settle(self, fabric: Any) -> None:
        """At the end of a step, move the buffers by what all slices of all processes (of ``fabric``; None: one) noted."""
        if fabric is not None and fabric.world_size > 1:
            sum_tensors(fabric, self.moves)
        for buffer, move in zip(self.buffers, self.moves, strict=True):
            buffer.add_(move)
            move.zero_()
