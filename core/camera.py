"""The one camera type: OpenCV axes, camera-to-world, intrinsics divided by the image size.

World units are EG3D's: the head lies in a cube of side 1 about the origin, y up, the face looks to +z; the camera is at radius 2.7.
OpenCV axes: x right, y down, z forward (into the image).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

EG3D_FOCAL = 4.2647
"""EG3D's focal length in image widths: 18.837 degrees is the *diagonal* field of view, 13.37 the horizontal one."""
EG3D_RADIUS = 2.7


@dataclass
class Camera:
    """A batch of cameras.

    ``cam2world`` [B,4,4]: rotation columns are the camera's right, down and forward axes in the world, the last column its position.
    ``intrinsics`` [B,3,3]: focal lengths and principal point divided by image width and height; pixel (row, col) of an H x W
    image has its centre at ((col + 0.5) / W, (row + 0.5) / H).

    >>> camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    >>> [round(v, 4) for v in camera.position[0].tolist()]
    [0.0, 0.0, 2.7]
    """

    cam2world: Tensor
    intrinsics: Tensor

    def __len__(self) -> int:
        return len(self.cam2world)

    def __getitem__(self, index: slice | Tensor | list[int]) -> Camera:
        return Camera(self.cam2world[index], self.intrinsics[index])

    def to(self, *args: object, **kwargs: object) -> Camera:
        """Move to a device or dtype, as ``Tensor.to``."""
        return Camera(self.cam2world.to(*args, **kwargs), self.intrinsics.to(*args, **kwargs))  # type: ignore[call-overload]

    @property
    def position(self) -> Tensor:
        """Camera centres in the world, [B,3]."""
        return self.cam2world[:, :3, 3]

    @property
    def forward_axis(self) -> Tensor:
        """Viewing directions in the world, [B,3], unit length."""
        return self.cam2world[:, :3, 2]

    @property
    def view_angle(self) -> Tensor:
        """Angle in radians between the camera's backward axis and the frontal direction +z, [B], in [0, pi]."""
        return (-self.cam2world[:, 2, 2]).clamp(-1.0, 1.0).acos()

    def label(self) -> Tensor:
        """EG3D's 25 numbers, [B,25]: 16 of cam2world, then 9 of intrinsics, both row-major."""
        return torch.cat([self.cam2world.flatten(1), self.intrinsics.flatten(1)], dim=1)

    @classmethod
    def from_label(cls, label: Tensor) -> Camera:
        """Read EG3D's 25 numbers, [B,25].

        >>> camera = Camera.looking_at_origin(torch.tensor([0.3]), torch.tensor([0.1]))
        >>> torch.equal(Camera.from_label(camera.label()).cam2world, camera.cam2world)
        True
        """
        if label.ndim != 2 or label.shape[1] != 25:
            raise ValueError(f"a camera label has shape [B,25], got {list(label.shape)}")
        return cls(label[:, :16].reshape(-1, 4, 4), label[:, 16:].reshape(-1, 3, 3))

    @classmethod
    def looking_at_origin(cls, yaw: Tensor, pitch: Tensor, *, radius: float = EG3D_RADIUS, focal: float = EG3D_FOCAL) -> Camera:
        """Cameras on a sphere about the origin, looking at it.

        ``yaw`` and ``pitch`` [B] in radians; (0, 0) looks at the face from +z, positive yaw moves the camera to +x,
        positive pitch to +y. ``focal`` in image widths.
        """
        position = radius * torch.stack([pitch.cos() * yaw.sin(), pitch.sin(), pitch.cos() * yaw.cos()], dim=-1)
        return cls.looking_at(position, torch.zeros_like(position), focal=focal)

    @classmethod
    def looking_at(cls, position: Tensor, target: Tensor, *, focal: float = EG3D_FOCAL) -> Camera:
        """Cameras at ``position`` [B,3] whose forward axis passes through ``target`` [B,3]; up is +y."""
        forward = torch.nn.functional.normalize(target - position, dim=-1)
        up = torch.tensor([0.0, 1.0, 0.0], dtype=position.dtype, device=position.device).expand_as(forward)
        right = torch.nn.functional.normalize(torch.linalg.cross(forward, up, dim=-1), dim=-1)
        down = torch.linalg.cross(forward, right, dim=-1)
        cam2world = torch.eye(4, dtype=position.dtype, device=position.device).repeat(len(position), 1, 1)
        cam2world[:, :3, 0], cam2world[:, :3, 1] = right, down
        cam2world[:, :3, 2], cam2world[:, :3, 3] = forward, position
        return cls(cam2world, intrinsics_from_focal(focal, len(position), like=position))

    @classmethod
    def from_pitch_yaw(cls, pitch: Tensor, yaw: Tensor, *, radius: float = EG3D_RADIUS, focal: float = EG3D_FOCAL) -> Camera:
        """Cameras by pi-GAN's angles [B] in radians, looking at the origin: pitch phi from +y, yaw theta from +x towards +z.

        position = radius (sin phi cos theta, cos phi, sin phi sin theta); (pi/2, pi/2) looks at the face from +z, a smaller yaw moves
        the camera to +x, a smaller pitch to +y. ``focal`` in image widths.

        >>> camera = Camera.from_pitch_yaw(torch.tensor([math.pi / 2]), torch.tensor([math.pi / 2 - 0.3]))
        >>> torch.allclose(camera.position, Camera.looking_at_origin(torch.tensor([0.3]), torch.zeros(1)).position, atol=1e-6)
        True
        """
        position = radius * torch.stack([pitch.sin() * yaw.cos(), pitch.cos(), pitch.sin() * yaw.sin()], dim=-1)
        return cls.looking_at(position, torch.zeros_like(position), focal=focal)

    def pitch_yaw(self) -> Tensor:
        """pi-GAN's pitch in [0, pi] and yaw in [-pi/2, 3 pi/2) of where the cameras are, [B,2]: see `from_pitch_yaw`.

        >>> camera = Camera.from_pitch_yaw(torch.tensor([1.2]), torch.tensor([2.0]))
        >>> [round(v, 4) for v in camera.pitch_yaw()[0].tolist()]
        [1.2, 2.0]
        """
        x, y, z = self.position.unbind(dim=-1)
        return torch.stack([torch.atan2((x.square() + z.square()).sqrt(), y), math.pi / 2 - torch.atan2(x, z)], dim=-1)

    def mirrored(self) -> Camera:
        """The cameras that see the mirrored world (x -> -x) as mirrored images.

        >>> camera = Camera.looking_at_origin(torch.tensor([0.3]), torch.tensor([0.1]))
        >>> other = Camera.looking_at_origin(torch.tensor([-0.3]), torch.tensor([0.1]))
        >>> torch.allclose(camera.mirrored().cam2world, other.cam2world, atol=1e-6)
        True
        """
        flip = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0])).to(self.cam2world)
        intrinsics = self.intrinsics.clone()
        intrinsics[:, 0, 1] = -intrinsics[:, 0, 1]
        intrinsics[:, 0, 2] = 1.0 - intrinsics[:, 0, 2]
        return Camera(flip @ self.cam2world @ flip, intrinsics)

    def zoomed(self, factor: float) -> Camera:
        """The same cameras with ``factor`` times the focal length."""
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :2, :2] = intrinsics[:, :2, :2] * factor
        return Camera(self.cam2world, intrinsics)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project world points [B,N,3]: image coordinates [B,N,2] in units of the image size, and depth along z [B,N]."""
        local = (points - self.position[:, None]) @ self.cam2world[:, :3, :3]
        homogeneous = local @ self.intrinsics.transpose(1, 2)
        return homogeneous[..., :2] / homogeneous[..., 2:], local[..., 2]

    def pixel_pitch(self, resolution: int, distance: float = EG3D_RADIUS) -> Tensor:
        """Width in world units of one pixel at ``distance``, [B]: distance / (focal * resolution)."""
        return distance / (self.intrinsics[:, 0, 0] * resolution)

    def to_pytorch3d(self, size: tuple[int, int] | None = None) -> Any:
        """The same cameras as PyTorch3D's ``PerspectiveCameras``, in its normalised image coordinates.

        Formula: `core.camera_pytorch3d.pytorch3d_parameters`, which needs no package. ``size``: (height, width) of the image in
        pixels, None for square ones. Raises MissingPackageError without PyTorch3D, PriorzooError for another size.
        """
        from .camera_pytorch3d import to_cameras

        return to_cameras(self, size)

    @classmethod
    def from_pytorch3d(cls, cameras: Any, size: tuple[int, int] | None = None) -> Camera:
        """Read PyTorch3D's cameras, defined in its normalised image or in pixels, or by a field of view.

        ``size``: (height, width) of the image in pixels; None takes that of the cameras, or a square image where they hold
        none. Raises PriorzooError for orthographic cameras, and for cameras in pixels without a size.
        """
        from .camera_pytorch3d import from_cameras

        return from_cameras(cameras, size)


def intrinsics_from_focal(focal: float, count: int, *, like: Tensor | None = None) -> Tensor:
    """Intrinsics [count,3,3] of square pixels with the principal point in the middle; ``focal`` in image widths."""
    matrix = torch.tensor([[focal, 0.0, 0.5], [0.0, focal, 0.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    matrix = matrix.float() if like is None else matrix.to(like)
    return matrix.repeat(count, 1, 1)


def focal_from_field_of_view(degrees: float) -> float:
    """Focal length in image widths of a *horizontal* field of view.

    >>> round(focal_from_field_of_view(13.37), 2)
    4.27
    """
    return 0.5 / math.tan(math.radians(degrees) / 2)
