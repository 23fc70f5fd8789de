"""Rays of a camera, and where rays meet the box in which a field is modelled."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import PriorzooError

PIXELS = ("centres", "corners")


def rays_from_camera(camera: Camera, height: int, width: int, pixels: str = "centres") -> tuple[Tensor, Tensor]:
    """Origins and unit directions in the world, [B,R,3] each, R = height * width in row-major order.

    The ray through image point (u, v), in units of the image size, has camera coordinates
    y = (v - cy) / fy, x = (u - cx - skew * y) / fx, z = 1. ``pixels="centres"`` takes u = (col + 0.5) / width (EG3D);
    ``"corners"`` spreads the pixels from edge to edge, u = col / (width - 1) (pi-GAN).

    Raises PriorzooError for another ``pixels``.

    >>> import torch
    >>> camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    >>> origins, directions = rays_from_camera(camera, 1, 1)
    >>> directions[0, 0].tolist()
    [0.0, 0.0, -1.0]
    """
    matrix, intrinsics = camera.cam2world, camera.intrinsics
    u, v = _image_points(height, width, pixels, like=matrix)
    fx, skew, cx = (intrinsics[:, 0, i, None] for i in range(3))
    fy, cy = intrinsics[:, 1, 1, None], intrinsics[:, 1, 2, None]
    y = (v - cy) / fy
    x = (u - cx - skew * y) / fx
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = torch.nn.functional.normalize(local @ matrix[:, :3, :3].transpose(1, 2), dim=-1)
    origins = matrix[:, None, :3, 3].expand_as(directions)
    return origins, directions


def _image_points(height: int, width: int, pixels: str, like: Tensor) -> tuple[Tensor, Tensor]:
    """Flat image coordinates u, v [R] of all pixels, in units of the image size."""
    if pixels not in PIXELS:
        raise PriorzooError(f"rays: pixels {pixels!r} is not one of {', '.join(PIXELS)}")
    axes = []
    for count in (height, width):
        index = torch.arange(count, dtype=like.dtype, device=like.device)
        axes.append((index + 0.5) / count if pixels == "centres" else index / max(count - 1, 1))
    v, u = torch.meshgrid(axes[0], axes[1], indexing="ij")
    return u.reshape(-1), v.reshape(-1)


def ray_box_bounds(origins: Tensor, directions: Tensor, side: float) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays [B,R,3] enter and leave the cube of ``side`` about the origin: near, far [B,R] and hit [B,R] (slab
    method).

    Near and far of rays that miss are meaningless; see `automatic_bounds`.

    >>> near, far, hit = ray_box_bounds(torch.tensor([[[0.0, 0.0, 2.0]]]), torch.tensor([[[0.0, 0.0, -1.0]]]), 1.0)
    >>> near.item(), far.item(), hit.item()
    (1.5, 2.5, True)
    """
    inverse = 1.0 / directions
    first, second = (-side / 2 - origins) * inverse, (side / 2 - origins) * inverse
    near = torch.minimum(first, second).amax(dim=-1)
    far = torch.maximum(first, second).amin(dim=-1)
    return near, far, near <= far


@torch.no_grad()
def automatic_bounds(origins: Tensor, directions: Tensor, side: float, *, as_published: bool = True) -> tuple[Tensor, Tensor]:
    """Per-ray bounds [B,R,1] from the box of ``side``, for rays [B,R,3]; no gradient.

    Rays that miss the box get the smallest near of those that hit, and the largest far; ``as_published`` they get the
    largest *near* instead, as EG3D's code does. When all rays miss, the marks of the published code (-1, -2) stay.
    """
    near, far, hit = ray_box_bounds(origins, directions, side)
    near, far = torch.where(hit, near, -1.0), torch.where(hit, far, -2.0)
    valid = far > near
    if bool(valid.any()):
        lowest = near[valid].min()
        highest = near[valid].max() if as_published else far[valid].max()
        near, far = torch.where(valid, near, lowest), torch.where(valid, far, highest)
    return near[..., None], far[..., None]
