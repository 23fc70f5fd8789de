"""The moving average of the generator, whose samples are what is shown and measured."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
