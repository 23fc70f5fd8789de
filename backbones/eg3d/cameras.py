"""The published camera helpers, for comparison with published pictures; `core.camera` is what everything else uses."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...core.camera import Camera


def published_look_at(
    horizontal: Tensor,
    vertical: Tensor,
    target: tuple[float, float, float],
    *,
    radius: float = 2.7,
    focal: float = 4.2647,
) -> Camera:
    """EG3D's look-at cameras for angles [B] in radians; (pi/2, pi/2) is frontal.

    The vertical angle is arccos(1 - 2 v / pi), not v, so a pitch offset p near pi/2 gives about 0.637 p; the position
    is on a sphere about the world's origin, only the axis passes through ``target``.

    >>> half = torch.full((1,), math.pi / 2)
    >>> [round(x, 4) + 0.0 for x in published_look_at(half, half, (0.0, 0.0, 0.2)).position[0].tolist()]
    [0.0, 0.0, 2.7]
    """
    v = vertical.clamp(1e-5, math.pi - 1e-5)
    phi = torch.arccos(1.0 - 2.0 * v / math.pi)
    theta = math.pi - horizontal
    position = radius * torch.stack([phi.sin() * theta.cos(), phi.cos(), phi.sin() * theta.sin()], dim=-1)
    return Camera.looking_at(position, torch.tensor(target).to(position).expand_as(position), focal=focal)


def published_focal(degrees: float) -> float:
    """EG3D's focal length in image widths of a *diagonal* field of view, with its truncated constants.

    >>> round(published_focal(18.837), 5), round(published_focal(18), 5)
    (4.26339, 4.46517)
    """
    return 1.0 / (1.414 * math.tan(degrees * 3.14159 / 360))
