"""Signed distances of simple solids and their smooth unions: the alphabet of the procedural head.

Coordinates and radii are tensors that broadcast against each other; distances are in the coordinates' own unit,
negative inside. Formulas: the usual closed forms (sphere, round cone by its axis, polynomial smooth minimum).
"""

from __future__ import annotations

import torch
from torch import Tensor

Number = Tensor | float


def length(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Euclidean norm of (x, y, z)."""
    return (x * x + y * y + z * z).sqrt()


def ellipsoid(x: Tensor, y: Tensor, z: Tensor, a: Number, b: Number, c: Number) -> Tensor:
    """First-order distance to the ellipsoid with semi-axes a, b, c: k0 (k0 - 1) / |grad k0^2 / 2|."""
    u, v, w = x / a, y / b, z / c
    k0 = length(u, v, w)
    return k0 * (k0 - 1) / length(u / a, v / b, w / c).clamp_min(1e-6)


def capsule(
    x: Tensor,
    y: Tensor,
    z: Tensor,
    start: tuple[Number, Number, Number],
    end: tuple[Number, Number, Number],
    radius_start: Number,
    radius_end: Number,
) -> Tensor:
    """Capsule from `start` to `end` whose radius goes linearly from `radius_start` to `radius_end`."""
    ax, ay, az = start
    ux, uy, uz = end[0] - ax, end[1] - ay, end[2] - az
    px, py, pz = x - ax, y - ay, z - az
    t = ((px * ux + py * uy + pz * uz) / (ux * ux + uy * uy + uz * uz)).clamp(0, 1)
    return length(px - t * ux, py - t * uy, pz - t * uz) - (radius_start + (radius_end - radius_start) * t)


def smooth_min(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Union with a fillet of width k: min(a, b) - max(k - |a - b|, 0)^2 / (4 k).

    >>> smooth_min(torch.tensor(0.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64), 0.5)
    tensor(-0.1250, dtype=torch.float64)
    """
    h = (k - (a - b).abs()).clamp_min(0)
    return torch.minimum(a, b) - h * h * (0.25 / k)


def smooth_max(a: Tensor, b: Tensor, k: float) -> Tensor:
    """Intersection with a fillet of width k (subtract a solid by passing its negated distance)."""
    return -smooth_min(-a, -b, k)
