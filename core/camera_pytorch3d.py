"""Cameras to and from PyTorch3D's: the formulas, which need nothing, and its camera classes, which need its package.

PyTorch3D multiplies row vectors, x_view = x_world R + T, with x to the left, y up and z forward. Its normalised image (NDC) has +x left and
+y up; the shorter side reaches from -1 to 1, the longer one further in proportion.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .errors import MissingPackageError, PriorzooError

if TYPE_CHECKING:
    from .camera import Camera

INSTALL = (
    "there is no Linux wheel; build it against the torch you have (a good half hour on two cores): "
    "pip install --no-build-isolation --no-deps git+https://github.com/facebookresearch/pytorch3d.git@v0.7.9"
)


class PyTorch3DParameters(NamedTuple):
    """What PyTorch3D's PerspectiveCameras take, with in_ndc=True.

    ``rotation`` [B,3,3] and ``translation`` [B,3]: x_view = x_world R + T. ``focal`` [B,2], ``principal`` [B,2] and
    ``skew`` [B] in NDC: x = (focal_x X + skew Y) / Z + principal_x, y = focal_y Y / Z + principal_y.
    """

    rotation: Tensor
    translation: Tensor
    focal: Tensor
    principal: Tensor
    skew: Tensor


def pytorch3d(part: str) -> Any:
    """Return the module ``pytorch3d.part``; MissingPackageError with the install line where it cannot be imported.

    >>> pytorch3d("no_such_part")
    Traceback (most recent call last):
    ...
    priorzoo.core.errors.MissingPackageError: this needs PyTorch3D...
    """
    try:
        return importlib.import_module(f"pytorch3d.{part}")
    except (ImportError, OSError, RuntimeError) as error:  # an extension built against another torch raises any of them
        raise MissingPackageError(f"this needs PyTorch3D, which does not import here ({error}); {INSTALL}") from error


def pytorch3d_parameters(camera: Camera, size: tuple[int, int] | None = None) -> PyTorch3DParameters:
    """Return a camera in PyTorch3D's terms.

    With F = diag(-1, -1, 1), which turns OpenCV's axes (right, down) into PyTorch3D's (left, up): R = R_cam2world F and T = -position R.
    With u, v in [0,1] and e = (width, height) / min(width, height): x = (1 - 2 u) e_x, y = (1 - 2 v) e_y, hence
    focal = 2 e f, principal = e (1 - 2 c).

    ``size``: (height, width) in pixels, of which only the ratio counts; None: a square image. Raises PriorzooError for another size.

    >>> from priorzoo.core.camera import Camera
    >>> given = pytorch3d_parameters(Camera.looking_at_origin(torch.zeros(1), torch.zeros(1), focal=2.0))
    >>> given.rotation[0].diagonal().tolist(), (given.translation[0] + 0.0).tolist()
    ([-1.0, 1.0, -1.0], [0.0, 0.0, 2.700000047683716])
    >>> given.focal[0].tolist(), given.principal[0].tolist()
    ([4.0, 4.0], [0.0, 0.0])
    """
    intrinsics = camera.intrinsics
    extent = _extent(size, like=intrinsics)
    rotation = camera.cam2world[:, :3, :3] * intrinsics.new_tensor([-1.0, -1.0, 1.0])
    return PyTorch3DParameters(
        rotation=rotation,
        translation=-(camera.position[:, None] @ rotation)[:, 0],
        focal=2.0 * extent * intrinsics[:, :2, :2].diagonal(dim1=1, dim2=2),
        principal=extent * (1.0 - 2.0 * intrinsics[:, :2, 2]),
        skew=2.0 * extent[..., 0] * intrinsics[:, 0, 1],
    )


def camera_from_parameters(given: PyTorch3DParameters, size: tuple[int, int] | Tensor | None = None) -> Camera:
    """Return the camera of PyTorch3D's terms, the inverse of `pytorch3d_parameters`.

    ``size``: (height, width), also one per camera, [B,2].
    """
    from .camera import Camera

    extent = _extent(size, like=given.focal)
    count = len(given.rotation)
    cam2world = torch.eye(4, dtype=given.rotation.dtype, device=given.rotation.device).repeat(count, 1, 1)
    cam2world[:, :3, :3] = given.rotation * given.rotation.new_tensor([-1.0, -1.0, 1.0])
    cam2world[:, :3, 3] = -(given.translation[:, None] @ given.rotation.transpose(1, 2))[:, 0]
    intrinsics = torch.zeros_like(given.rotation)
    intrinsics[:, :2, :2] = torch.diag_embed(given.focal / (2.0 * extent))
    intrinsics[:, 0, 1] = given.skew / (2.0 * extent[..., 0])
    intrinsics[:, :2, 2] = (1.0 - given.principal / extent) / 2.0
    intrinsics[:, 2, 2] = 1.0
    return Camera(cam2world, intrinsics)


def to_cameras(camera: Camera, size: tuple[int, int] | None = None) -> Any:
    """Return PyTorch3D's PerspectiveCameras; see `Camera.to_pytorch3d`."""
    given = pytorch3d_parameters(camera, size)
    calibration: dict[str, Tensor] = {"focal_length": given.focal, "principal_point": given.principal}
    if bool((given.skew != 0).any()):  # only a whole matrix has a place for it
        matrix = given.focal.new_zeros(len(camera), 4, 4)
        matrix[:, :2, :2] = torch.diag_embed(given.focal)
        matrix[:, 0, 1] = given.skew
        matrix[:, :2, 2] = given.principal
        matrix[:, 2, 3] = matrix[:, 3, 2] = 1.0
        calibration = {"K": matrix}
    pixels = {} if size is None else {"image_size": torch.tensor([size], device=given.focal.device).expand(len(camera), 2)}
    cameras = pytorch3d("renderer.cameras").PerspectiveCameras
    return cameras(R=given.rotation, T=given.translation, in_ndc=True, device=given.focal.device, **calibration, **pixels)


def from_cameras(cameras: Any, size: tuple[int, int] | None = None) -> Camera:
    """Return our cameras of PyTorch3D's; see `Camera.from_pytorch3d`."""
    stored = getattr(cameras, "image_size", None)
    in_ndc = cameras.in_ndc()
    if not in_ndc and stored is None and size is None:
        raise PriorzooError(
            "camera: PyTorch3D's cameras are defined in pixels (in_ndc=False) and hold no image_size; give size=(height, width)"
        )
    transform = cameras.get_projection_transform()
    if not in_ndc:
        pixels = {} if size is None else {"image_size": torch.tensor([size], device=cameras.device).expand(len(cameras), 2)}
        transform = transform.compose(cameras.get_ndc_camera_transform(**pixels))
    matrix = transform.get_matrix()  # for row vectors: columns x, y, z, w
    if not torch.allclose(matrix[:, :, 3], matrix.new_tensor([0.0, 0.0, 1.0, 0.0])):
        raise PriorzooError(f"camera: {type(cameras).__name__} is no pinhole camera: it does not divide by depth")
    given = PyTorch3DParameters(cameras.R, cameras.T, matrix[:, :2, :2].diagonal(dim1=1, dim2=2), matrix[:, 2, :2], matrix[:, 1, 0])
    return camera_from_parameters(given, stored if size is None else size)


def _extent(size: tuple[int, int] | Tensor | None, like: Tensor) -> Tensor:
    """(width, height) / min(width, height), [2] or one per camera [B,2]."""
    if size is None:
        return like.new_ones(2)
    pixels = torch.as_tensor(size, dtype=like.dtype, device=like.device)
    if pixels.shape[-1:] != (2,) or not bool((pixels > 0).all()):
        raise PriorzooError(f"camera: size is (height, width) in pixels, got {size}")
    return pixels.flip(-1) / pixels.amin(dim=-1, keepdim=True)
