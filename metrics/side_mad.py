"""SIDE and MAD, the errors of depth maps that Unsup3D and GOF's paper report, with Unsup3D's own mask and normals."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..core.errors import PriorzooError
from .geometry import eroded, masked_mean, normal_error

FIELD_OF_VIEW = 10.0
"""Degrees across the image that Unsup3D's depth maps are seen with."""


def scale_invariant_depth_error(depth: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """SIDE [B]: the standard deviation over the mask of the logarithm of one depth over the other.

    d = ln depth - ln true, SIDE = sqrt(mean((d - mean d)^2)) over the mask (Wu et al. 2020, Unsup3D). Scaling a depth changes
    nothing, shifting it does. Depths along z and distances along the ray give the same number: what is between them cancels.
    NaN where the mask is empty.

    Args: depth, true [B,1,h,w] > 0 inside the mask, in any unit of length; mask boolean [B,1,h,w]. Raises PriorzooError for depths of 0
    or less, or not finite, inside the mask.

    >>> true = torch.tensor([[[[1.0, 1.0]]]])
    >>> depth = torch.tensor([[[[math.e, 1 / math.e]]]])
    >>> scale_invariant_depth_error(depth, true, torch.ones_like(true).bool()).tolist()
    [1.0]
    """
    logarithms = []
    for name, values in (("depth", depth), ("true depth", true)):
        inside = values[mask]
        if bool((~torch.isfinite(inside) | (inside <= 0)).any()):
            worst = inside[~torch.isfinite(inside) | (inside <= 0)][0].item()
            raise PriorzooError(f"SIDE: {name} must be finite and above 0 inside the mask, got {worst:g}")
        logarithms.append(torch.where(mask, values, torch.ones_like(values)).log())
    difference = logarithms[0] - logarithms[1]
    mean = masked_mean(difference, mask).view(-1, 1, 1, 1)
    return masked_mean((difference - mean).square(), mask).sqrt()


def mean_angle_deviation(normals: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """MAD [B]: the mean angle between two normal maps over the mask, degrees (Wu et al. 2020, Unsup3D).

    Args: normals, true [B,3,h,w], in one frame; mask boolean [B,1,h,w]. NaN where the mask is empty.

    >>> a, b = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1), torch.tensor([0.0, 1.0, 1.0]).view(1, 3, 1, 1)
    >>> mean_angle_deviation(a, b, torch.ones(1, 1, 1, 1, dtype=torch.bool)).tolist()
    [45.0]
    """
    return normal_error(normals, true, mask)


def mask_of_both(valid: Tensor, true: Tensor) -> Tensor:
    """Where both errors are taken, [B,1,h,w]: both boolean masks [B,1,h,w], each eroded by 3 x 3 pixels; the image's border is outside."""
    return eroded(valid, 3) & eroded(true, 3)


def normals_of_depth_map(depth: Tensor, field_of_view: float = FIELD_OF_VIEW) -> Tensor:
    """Unit normals [B,3,h,w] of a depth map in the camera's frame (x right, y down, z forward), pointing away from the camera.

    Cross product of the central differences of the points to the right and downwards; (0, 0, 1) on the image's border (Unsup3D's code).
    The point of pixel (row, col) is z ((col + 0.5 - w/2) / f, (row + 0.5 - h/2) / f, 1), f = w / (2 tan(field_of_view / 2)).

    Args: depth [B,1,h,w] along z; field_of_view across the image's width in degrees, in (0, 180). Raises PriorzooError for another.

    >>> normals_of_depth_map(torch.ones(1, 1, 3, 3))[0, :, 1, 1].tolist()
    [0.0, 0.0, 1.0]
    """
    if not 0.0 < field_of_view < 180.0:
        raise PriorzooError(f"normals of a depth map: the field of view lies between 0 and 180 degrees, got {field_of_view:g}")
    height, width = depth.shape[-2:]
    focal = width / (2 * math.tan(math.radians(field_of_view) / 2))
    x = ((torch.arange(width, device=depth.device) + 0.5 - width / 2) / focal).to(depth).view(1, 1, 1, -1)
    y = ((torch.arange(height, device=depth.device) + 0.5 - height / 2) / focal).to(depth).view(1, 1, -1, 1)
    points = torch.cat([x * depth, y * depth, depth], dim=1)
    right = points[:, :, 1:-1, 2:] - points[:, :, 1:-1, :-2]
    down = points[:, :, 2:, 1:-1] - points[:, :, :-2, 1:-1]
    normals = torch.zeros_like(points)
    normals[:, 2] = 1.0
    normals[:, :, 1:-1, 1:-1] = functional.normalize(torch.linalg.cross(right, down, dim=1), dim=1)
    return normals
