"""The order in which real images are seen: a fresh permutation each pass, derived from the seed and the position alone."""

from __future__ import annotations

from functools import lru_cache

import torch

from ..core.streams import derived_seed


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, size: int) -> torch.Tensor:
    return torch.randperm(size, generator=torch.Generator().manual_seed(derived_seed(seed, "order", epoch)))


def image_at(seed: int, position: int, size: int) -> int:
    """Return which of ``size`` images is the ``position``-th one seen since the start of the run.

    >>> sorted(image_at(0, i, 4) for i in range(4))
    [0, 1, 2, 3]
    """
    return int(_permutation(seed, position // size, size)[position % size])
