"""Points and normals of a rendered surface, from its depth map or from the field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.errors import PriorzooError
from ..core.scene import Field

METHODS = ("autograd", "finite_differences")


def points_from_depth(depth: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """World points [B,3,h,w] at ``depth`` [B,1,h,w] along rays [B,R,3], R = h * w.

    >>> points_from_depth(torch.full((1, 1, 1, 1), 2.0), torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.0, 1.0]]])).flatten().tolist()
    [0.0, 0.0, 2.0]
    """
    batch, _, height, width = depth.shape

    def image(rays: Tensor) -> Tensor:
        return rays.transpose(1, 2).reshape(batch, 3, height, width)

    return image(origins) + image(directions) * depth


def normals_from_depth(depth: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    """Unit normals [B,3,h,w] in the world of the surface at ``depth`` [B,1,h,w], turned to the camera.

    Cross product of the central differences of neighbouring points (one-sided at the border).

    >>> from ..core.camera import Camera
    >>> from .rays import rays_from_camera
    >>> o, d = rays_from_camera(Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)), 3, 3)
    >>> plane = (2.7 / -d[..., 2]).reshape(1, 1, 3, 3)          # the plane z = 0
    >>> [abs(round(v, 3)) for v in normals_from_depth(plane, o, d)[0, :, 1, 1].tolist()]
    [0.0, 0.0, 1.0]
    """
    batch, _, height, width = depth.shape
    points = points_from_depth(depth, origins, directions)
    padded = F.pad(points, (1, 1, 1, 1), mode="replicate")
    right = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    normals = F.normalize(torch.linalg.cross(down, right, dim=1), dim=1)
    towards = (normals * directions.transpose(1, 2).reshape(batch, 3, height, width)).sum(dim=1, keepdim=True)
    return torch.where(towards > 0, -normals, normals)


def normals_from_field(field: Field, points: Tensor, method: str = "autograd", *, step: float = 1e-3) -> Tensor:
    """Outward unit normals [B,N,3] of a field at world ``points`` [B,N,3]: minus its normalised gradient (plus, for an
    sdf).

    The gradient is that of the raw output, which has the direction of the density's and does not saturate.
    ``autograd`` differentiates the field, and is differentiable again; ``finite_differences`` takes central differences
    of ``step`` world units.

    >>> class Ball:
    ...     kind, extent = "sdf", 1.0
    ...     def __call__(self, p):
    ...         from ..core.scene import FieldSample
    ...         return FieldSample(p.norm(dim=-1) - 0.5, p.norm(dim=-1) - 0.5)
    >>> normals_from_field(Ball(), torch.tensor([[[0.0, 2.0, 0.0]]])).flatten().tolist()
    [0.0, 1.0, 0.0]
    """
    if method not in METHODS:
        raise PriorzooError(f"normals: method {method!r} is not one of {', '.join(METHODS)}")
    gradient = _field_gradient(field, points) if method == "autograd" else _field_differences(field, points, step)
    return F.normalize(gradient if field.kind == "sdf" else -gradient, dim=-1)


def _field_gradient(field: Field, points: Tensor) -> Tensor:
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        where = points if points.requires_grad else points.detach().requires_grad_(True)
        raw = field(where).raw
        return torch.autograd.grad(raw.sum(), where, create_graph=differentiable)[0]


def _field_differences(field: Field, points: Tensor, step: float) -> Tensor:
    batch, count, _ = points.shape
    shifts = torch.eye(3, dtype=points.dtype, device=points.device) * step
    moved = torch.cat([points[:, :, None] + shifts, points[:, :, None] - shifts], dim=2)
    raw = field(moved.reshape(batch, count * 6, 3)).raw.reshape(batch, count, 2, 3)
    return (raw[:, :, 0] - raw[:, :, 1]) / (2 * step)
