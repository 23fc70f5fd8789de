"""A mesh as a picture: shaded, and in its colours, from the front, three quarters and the side."""

from __future__ import annotations

import math

import numpy as np
import torch

from ..core.camera import EG3D_RADIUS, Camera
from ..core.errors import PriorzooError
from ..shapes.mesh_rasteriser import SeenMesh, rasterise
from ..shapes.meshes import Mesh
from .sheets import BACKDROP, Picture, contact_sheet, shaded_pictures

YAWS = (0.0, math.pi / 4, math.pi / 2)
_FINER = 2  # pixels drawn along a side of a pixel that is shown
_MARGIN = 0.92


def mesh_picture(mesh: Mesh, *, size: int = 320, yaws: tuple[float, ...] = YAWS) -> Picture:
    """Draw a mesh that fills the picture from each yaw: shaded by Lambert's law above, with its own colours below.

    The shading takes normals as they are, outwards: a mesh that is inside out is dark. Raises PriorzooError for a mesh
    without faces.
    """
    if not len(mesh):
        raise PriorzooError("a mesh without faces cannot be drawn")
    rows: list[list[Picture]] = [[], []] if mesh.colours is not None else [[]]
    normals = mesh.vertex_normals()
    for yaw in yaws:
        camera = fitting_camera(mesh, yaw)
        seen = rasterise(mesh, camera, size * _FINER)
        covered = seen.covered[None, None].float()
        facing = torch.nn.functional.normalize(seen.interpolated(normals), dim=-1).permute(2, 0, 1)[None]
        rows[0].append(_reduced(shaded_pictures(facing, covered, camera)[0]))
        if mesh.colours is not None:
            rows[1].append(_reduced(_coloured(seen, mesh.colours)))
    return contact_sheet(rows)


def fitting_camera(mesh: Mesh, yaw: float) -> Camera:
    """The camera at ``yaw`` that looks at the middle of a mesh and holds it just inside its image."""
    low, high = mesh.vertices.amin(dim=0), mesh.vertices.amax(dim=0)
    middle = ((low + high) / 2).float()
    radius = max(float((mesh.vertices - middle).norm(dim=-1).max()), 1e-6)
    distance = EG3D_RADIUS * radius / 0.5  # the perspective of a head in EG3D's cube, whatever the mesh's size
    direction = torch.tensor([math.sin(yaw), 0.0, math.cos(yaw)])
    focal = 0.5 * _MARGIN * math.sqrt(distance**2 - radius**2) / radius
    return Camera.looking_at((middle + distance * direction)[None], middle[None], focal=focal)


def _coloured(seen: SeenMesh, colours: torch.Tensor) -> Picture:
    backdrop = torch.tensor(BACKDROP, dtype=torch.float32) / 255.0
    picture = torch.where(seen.covered[..., None], seen.interpolated(colours.float()), backdrop)
    return (picture.clamp(0.0, 1.0) * 255.0 + 0.5).floor().to(torch.uint8).numpy()


def _reduced(picture: Picture) -> Picture:
    side = picture.shape[0] // _FINER
    mean = picture.reshape(side, _FINER, side, _FINER, 3).astype(np.float64).mean(axis=(1, 3))
    return np.floor(mean + 0.5).astype(np.uint8)
