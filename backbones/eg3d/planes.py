"""Reading feature planes at points.

`sample_planes` is the fast operator (once differentiable); `sample_planes_smoothly` the same numbers in plain tensor
operations, differentiable as often as needed, for normals and their gradients.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import PriorzooError, did_you_mean

AXES = {
    "official": ((0, 1), (0, 2), (2, 0)),
    "corrected": ((0, 1), (0, 2), (2, 1)),
}
"""Which world axes are a plane's columns and rows. The released code reads the third plane as (Z, X), so that Y enters
through the first alone, and all released checkpoints are trained so; ``corrected`` makes it (Z, Y)."""


def plane_axes(name: str) -> tuple[tuple[int, int], ...]:
    """The axes of a rule's name, or PriorzooError."""
    if name not in AXES:
        raise PriorzooError(f"plane_axes: {name!r} is not one of {', '.join(AXES)}" + did_you_mean(name, AXES))
    return AXES[name]


def plane_grid(points: Tensor, box_warp: float, axes: tuple[tuple[int, int], ...]) -> Tensor:
    """Plane coordinates [B,3,N,2] of world points [B,N,3]; the planes cover the cube of side ``box_warp``, as [-1,1]."""
    scaled = points * (2.0 / box_warp)
    return torch.stack([scaled[..., list(pair)] for pair in axes], dim=1)


def sample_planes(planes: Tensor, grid: Tensor) -> Tensor:
    """Features [B,3,C,N] of planes [B,3,C,H,W] at grid [B,3,N,2]: bilinear, texel centres, zeros outside."""
    batch, count, channels = planes.shape[:3]
    features = F.grid_sample(
        planes.flatten(0, 1), grid.flatten(0, 1)[:, :, None], mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return features.view(batch, count, channels, -1)


def sample_planes_smoothly(planes: Tensor, grid: Tensor) -> Tensor:
    """The same as `sample_planes`, in operations that can be differentiated twice.

    >>> planes = torch.arange(12.0).reshape(1, 3, 1, 2, 2)
    >>> grid = torch.full((1, 3, 1, 2), 0.25)
    >>> torch.allclose(sample_planes(planes, grid), sample_planes_smoothly(planes, grid))
    True
    """
    batch, count, channels, height, width = planes.shape
    texels = planes.reshape(batch, count, channels, height * width)
    x = (grid[..., 0] + 1.0) * (width / 2) - 0.5
    y = (grid[..., 1] + 1.0) * (height / 2) - 0.5
    left, top = x.detach().floor(), y.detach().floor()
    share_x, share_y = x - left, y - top
    total: Tensor | None = None
    for dx in (0, 1):
        for dy in (0, 1):
            column, row = left + dx, top + dy
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = row.clamp(0, height - 1).long() * width + column.clamp(0, width - 1).long()
            corner = texels.gather(3, index[:, :, None].expand(-1, -1, channels, -1))
            weight = (share_x if dx else 1.0 - share_x) * (share_y if dy else 1.0 - share_y)
            part = corner * (weight * inside)[:, :, None]
            total = part if total is None else total + part
    assert total is not None
    return total
