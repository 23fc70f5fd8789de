"""Smoothness of a depth map, pixel by pixel: what the priors sr and ssr average, and what shapes are measured by."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import PriorzooError
from ..core.options import check_choice, check_odd
from .selection import as_real

REDUCTIONS = ("sum", "mean")


def smoothness_map(depth: Tensor, window: int = 3, reduction: str = "sum", second_order: bool = False) -> Tensor:
    """Smoothness of every pixel: the squared differences to its neighbours.

    SR(x) = sum_o (D(x + o) - D(x))^2 over the window's k^2 - 1 offsets o != 0 (SSR report, eq. 1), by shifted
    differences instead of the report's k^2 - 1 convolutions (eq. 2). ``second_order``: (sum_o (D(x + o) - D(x)))^2, the
    squared Laplacian, which costs a slope nothing. Outside the image depth is that of the nearest border pixel. A plane
    of slope s per pixel has SR 6 s^2 for k = 3.

    Args: depth [B,1,h,w]; window k, odd, at least 3; reduction ``sum``, or ``mean``: the sum over o divided by k^2 - 1.
    Returns [B,1,h,w] in squared units of depth, float32 (float64 of float64). Raises PriorzooError for another window,
    reduction or shape.

    >>> smoothness_map(torch.tensor([[[[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]]]]))[0, 0, 1, 1].item()
    32.0
    """
    check_odd("smoothness_map", "window", window, least=3)
    check_choice("smoothness_map", "reduction", reduction, REDUCTIONS)
    if depth.ndim != 4 or depth.shape[1] != 1:
        raise PriorzooError(f"smoothness_map: depth must have shape [B,1,h,w], got {list(depth.shape)}")
    depth = as_real(depth)
    radius = window // 2
    height, width = depth.shape[2:]
    padded = functional.pad(depth, (radius,) * 4, mode="replicate")
    total = torch.zeros_like(depth)
    for row in range(window):
        for column in range(window):
            if (row, column) == (radius, radius):
                continue
            difference = padded[:, :, row : row + height, column : column + width] - depth
            total = total + (difference if second_order else difference * difference)
    if reduction == "mean":
        total = total / (window**2 - 1)
    return total * total if second_order else total
