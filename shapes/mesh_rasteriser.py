"""Which face of a mesh a camera sees at every pixel: a z-buffer in plain tensor operations, for pictures and checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import PriorzooError
from .meshes import Mesh

_AT_ONCE = 1 << 20  # pixels that are tried together: bounds memory
_NOTHING = torch.iinfo(torch.int64).max


@dataclass
class SeenMesh:
    """What a camera sees of a mesh on H x W pixels.

    ``face`` [H,W] int64, -1 where nothing is; ``shares`` [H,W,3] float64, how much of each of its corners is seen at the
    pixel (0 where nothing is); ``mesh`` itself.
    """

    mesh: Mesh
    face: Tensor
    shares: Tensor

    @property
    def covered(self) -> Tensor:
        """Where a face is seen, [H,W] boolean."""
        return self.face >= 0

    def interpolated(self, values: Tensor) -> Tensor:
        """Values at vertices [V,C] as an image [H,W,C]; 0 where nothing is seen."""
        if not len(self.mesh):
            return values.new_zeros(*self.face.shape, values.shape[1])
        return torch.einsum("hwk,hwkc->hwc", self.shares.to(values), values[self.mesh.faces[self.face.clamp(min=0)]])


def rasterise(mesh: Mesh, camera: Camera, size: int) -> SeenMesh:
    """Find the nearest face at the centre of every pixel of a ``size`` x ``size`` image of one camera; both sides count.

    Faces that reach behind the camera are left out. Exact at pixel centres; nothing is smoothed.

    >>> square = Mesh(torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    >>> rasterise(square, Camera.looking_at_origin(torch.zeros(1), torch.zeros(1)), 2).covered.tolist()
    [[True, True], [True, True]]
    """
    if len(camera) != 1:
        raise PriorzooError(f"rasterise: one camera at a time, got {len(camera)}")
    places, depth = camera.to(torch.float64).project(mesh.vertices.detach().double()[None].to(camera.cam2world.device))
    corners, inverse = (places[0] * size)[mesh.faces], (1.0 / depth[0])[mesh.faces]
    low = (corners.amin(dim=1) - 0.5).ceil().clamp(0, size)
    span = ((corners.amax(dim=1) - 0.5).floor().clamp(-1, size - 1) - low + 1).clamp(min=0)
    keys = torch.full((size * size,), _NOTHING, device=corners.device)
    faces = ((depth[0][mesh.faces] > 1e-6).all(dim=1) & (span > 0).all(dim=1)).nonzero()[:, 0]
    part = span[faces].prod(dim=1).cumsum(dim=0) // _AT_ONCE
    for some in torch.split(faces, torch.unique_consecutive(part, return_counts=True)[1].tolist()):
        _try_faces(keys, some, corners[some], inverse[some], low[some].long(), span[some].long(), size)
    face = torch.where(keys == _NOTHING, -1, keys & 0xFFFFFFFF)
    seen = face >= 0
    shares = torch.zeros(size * size, 3, dtype=torch.float64, device=corners.device)
    pixels = seen.nonzero()[:, 0]
    centres = torch.stack([pixels % size, pixels // size], dim=-1) + 0.5
    weights = _barycentric(corners[face[pixels]], centres) * inverse[face[pixels]]
    shares[pixels] = weights / weights.sum(dim=-1, keepdim=True)
    return SeenMesh(mesh, face.view(size, size), shares.view(size, size, 3))


def _try_faces(keys: Tensor, faces: Tensor, corners: Tensor, inverse: Tensor, low: Tensor, span: Tensor, size: int) -> None:
    """Try every pixel of the faces' bounding boxes, ``span`` [F,2] columns and rows from ``low``, in the z-buffer.

    The key of a pixel is the nearest depth (the bits of a positive float32 sort like it), then the face.
    """
    counts = span.prod(dim=1)
    owner = torch.arange(len(faces), device=faces.device).repeat_interleave(counts)
    step = torch.arange(len(owner), device=faces.device) - (counts.cumsum(dim=0) - counts)[owner]
    column, row = low[owner, 0] + step % span[owner, 0], low[owner, 1] + step // span[owner, 0]
    shares = _barycentric(corners[owner], torch.stack([column, row], dim=-1) + 0.5)
    hit = (shares >= 0).all(dim=-1)
    bits = (1.0 / (shares * inverse[owner]).sum(dim=-1))[hit].float().view(torch.int32).long()
    keys.scatter_reduce_(0, (row * size + column)[hit], (bits << 32) | faces[owner[hit]], "amin")


def _barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """Barycentric coordinates [P,3] of points [P,2] in triangles [P,3,2] of the plane; NaN where they have no area."""
    a, b, c = corners.unbind(dim=1)

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    parts = [cross(b - points, c - points), cross(c - points, a - points), cross(a - points, b - points)]
    return torch.stack(parts, dim=-1) / cross(b - a, c - a)[..., None]
