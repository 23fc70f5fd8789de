"""Shape errors and shape statistics of depth and normal maps: tensors in, one number per sample out.

Maps are [B,1,h,w] (depth in world units along the unit ray) or [B,3,h,w] (unit normals); masks are boolean [B,1,h,w].
Where a mask is empty the number is NaN: nothing was measured, which is not zero.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..core.camera import Camera
from ..rendering.selection import erode, hardest_mean
from ..rendering.standardising import standardised


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` [B,1,h,w] over ``mask``, [B]; NaN for an empty mask. Values outside may be anything, also
    infinite.

    >>> masked_mean(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[True, False]]]])).tolist()
    [1.0]
    """
    kept = torch.where(mask, values, torch.zeros_like(values)).flatten(1).sum(1)
    return kept / mask.flatten(1).sum(1)


def top_mean(values: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """Mean of the ``fraction`` largest of ``values`` [B,1,h,w] inside ``mask``, [B]: max(1, ceil(fraction N)) of N
    pixels.

    >>> top_mean(torch.tensor([[[[1.0, 5.0, 3.0, 9.0]]]]), torch.tensor([[[[True, True, True, False]]]]), 0.5).tolist()
    [4.0]
    """
    chosen = hardest_mean(values, mask, fraction)
    return torch.where(chosen.pixels > 0, chosen.value, math.nan)


def eroded(mask: Tensor, width: int) -> Tensor:
    """Erode a mask [B,1,h,w] by a square of odd ``width`` pixels; everything outside the image counts as outside the
    mask.

    >>> eroded(torch.ones(1, 1, 5, 5, dtype=torch.bool), 3).sum().item()
    9
    """
    return erode(mask, width) > 0.5


def depth_error(depth: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Root mean square difference of two depths, each standardised over ``mask``, [B]: 0 is equal up to shift and
    scale.

    sqrt(2 - 2 r) with r the correlation of the two depths over the mask.

    >>> a = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> depth_error(a, 3 * a + 2, torch.ones_like(a).bool()).item() < 1e-3
    True
    """
    difference = standardised(depth, mask) - standardised(true, mask)
    return masked_mean(difference.square(), mask).sqrt()


def angle_between(a: Tensor, b: Tensor) -> Tensor:
    """Angle in degrees between vectors [B,3,h,w], [B,1,h,w]; exact for tiny angles too, unlike the arc cosine."""
    cross = torch.linalg.cross(a, b, dim=1).norm(dim=1, keepdim=True)
    return torch.atan2(cross, (a * b).sum(1, keepdim=True)).rad2deg()


def normal_error(normals: Tensor, true: Tensor, mask: Tensor) -> Tensor:
    """Mean angle in degrees between two normal maps [B,3,h,w] over ``mask``, [B].

    >>> a, b = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    >>> a[:, 0], b[:, 1] = 1.0, 1.0
    >>> normal_error(a, b, torch.ones(1, 1, 2, 2, dtype=torch.bool)).tolist()
    [90.0]
    """
    return masked_mean(angle_between(normals, true), mask)


def intersection_over_union(a: Tensor, b: Tensor) -> Tensor:
    """|a and b| / |a or b| of two masks [B,1,h,w], [B], in [0,1]; NaN where both are empty."""
    return (a & b).flatten(1).sum(1) / (a | b).flatten(1).sum(1)


def roughness(normals: Tensor, mask: Tensor) -> Tensor:
    """Mean angle in degrees between normals of pixels side by side or one above the other, both inside ``mask``, [B].

    A sphere has its curvature here, a plane 0; noise adds to it and over-smoothing takes from it.

    >>> flat = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    >>> roughness(flat, torch.ones(1, 1, 4, 4, dtype=torch.bool)).tolist()
    [0.0]
    """
    total, count = normals.new_zeros(len(normals)), normals.new_zeros(len(normals))
    for axis in (2, 3):
        n = normals.shape[axis] - 1
        angle = angle_between(normals.narrow(axis, 0, n), normals.narrow(axis, 1, n))
        both = mask.narrow(axis, 0, n) & mask.narrow(axis, 1, n)
        total = total + torch.where(both, angle, torch.zeros_like(angle)).flatten(1).sum(1)
        count = count + both.flatten(1).sum(1)
    return total / count


def ray_deviation(weights: Tensor, distances: Tensor, height: int) -> Tensor:
    """How thick the surface is along each ray, world units, [B,1,h,w]: sqrt(sum w (t - m)^2 / sum w), m = sum w t /
    sum w.

    ``weights`` and ``distances`` [B,R,S], R = h w, row-major. A true surface has 0. Empty rays give 0: mask them.
    """
    total = weights.sum(-1, keepdim=True).clamp_min(1e-8)
    mean = (weights * distances).sum(-1, keepdim=True) / total
    variance = (weights * (distances - mean).square()).sum(-1, keepdim=True) / total
    return variance.clamp_min(0).sqrt().reshape(len(weights), 1, height, -1)


def turned(camera: Camera, angle: float) -> Camera:
    """The cameras carried about the world's y axis by ``angle`` radians: the same pitch and distance, another yaw.

    >>> front = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    >>> side = Camera.looking_at_origin(torch.tensor([0.2]), torch.zeros(1))
    >>> torch.allclose(turned(front, 0.2).cam2world, side.cam2world, atol=1e-6)
    True
    """
    c, s = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[c, 0.0, s, 0.0], [0.0, 1.0, 0.0, 0.0], [-s, 0.0, c, 0.0], [0.0, 0.0, 0.0, 1.0]])
    return Camera(rotation.to(camera.cam2world) @ camera.cam2world, camera.intrinsics)


def reprojection_error(points: Tensor, mask: Tensor, camera: Camera, depth: Tensor, depth_mask: Tensor) -> Tensor:
    """Median distance, in world units, between one view's surface points and the surface that another view sees, [B].

    ``points`` [B,3,h,w] of the first view inside ``mask``; ``camera``, ``depth`` and ``depth_mask`` of the second.
    Each point is projected into the second view, whose depth is read bilinearly there; the error is |distance of the
    point - depth|. Points that fall beside the image or next to the second view's background are left out; the median
    ignores the few that are hidden there.
    """
    flat = points.flatten(2).transpose(1, 2)
    flat = torch.where(mask.flatten(2).transpose(1, 2), flat, torch.zeros_like(flat))
    at, along = camera.project(flat)
    distance = (flat - camera.position[:, None]).norm(dim=-1)
    # grid_sample's -1..1 are the image's borders, as are 0..1 of Camera.project.
    grid = (at * 2 - 1)[:, None]
    solid = torch.where(depth_mask, depth, torch.zeros_like(depth))
    seen = functional.grid_sample(solid, grid, align_corners=False)[:, 0, 0]
    share = functional.grid_sample(depth_mask.to(depth), grid, align_corners=False)[:, 0, 0]
    valid = mask.flatten(1) & (share > 1 - 1e-4) & (along > 0)
    error = (distance - seen).abs()
    return torch.where(valid, error, torch.full_like(error, math.nan)).nanmedian(dim=1).values
