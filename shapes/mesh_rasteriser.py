"""Which face of a mesh a camera sees at every pixel: a z-buffer in plain tensor operations, for pictures and checks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import PriorzooError
from .meshes import Mesh

_AT_ONCE = 1 << 21  # pixels that are tried together: bounds memory
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
    inside = (depth[0][mesh.faces] > 1e-6).all(dim=1) & (span > 0).all(dim=1)
    keys = torch.full((size * size,), _NOTHING, device=corners.device)
    reach, first = span.amax(dim=1), 0
    # Small faces are many and large ones few: faces of like size are tried together on a square of pixels that holds them.
    while first < size:
        last = max(1, 2 * first)
        chosen = (inside & (reach > first) & (reach <= last)).nonzero()[:, 0]
        for faces in torch.split(chosen, max(1, _AT_ONCE // last**2)):
            _try_faces(keys, faces, corners[faces], inverse[faces], low[faces].long(), last, size)
        first = last
    face = torch.where(keys == _NOTHING, -1, keys & 0xFFFFFFFF)
    seen = face >= 0
    shares = torch.zeros(size * size, 3, dtype=torch.float64, device=corners.device)
    pixels = seen.nonzero()[:, 0]
    centres = torch.stack([pixels % size, pixels // size], dim=-1) + 0.5
    weights = _barycentric(corners[face[pixels]], centres[:, None])[:, 0] * inverse[face[pixels]]
    shares[pixels] = weights / weights.sum(dim=-1, keepdim=True)
    return SeenMesh(mesh, face.view(size, size), shares.view(size, size, 3))


def _try_faces(keys: Tensor, faces: Tensor, corners: Tensor, inverse: Tensor, low: Tensor, side: int, size: int) -> None:
    """Enter faces into the z-buffer: the key of a pixel is depth (the bits of a positive float32 sort like it), then face."""
    steps = torch.arange(side, device=faces.device)
    offsets = torch.stack([steps.repeat(side), steps.repeat_interleave(side)], dim=-1)
    pixels = low[:, None] + offsets  # [F,side^2,2], column and row
    shares = _barycentric(corners, pixels + 0.5)
    depth = 1.0 / (shares * inverse[:, None]).sum(dim=-1)
    hit = (shares >= 0).all(dim=-1) & (pixels < size).all(dim=-1)
    bits = depth[hit].float().view(torch.int32).long()
    places = (pixels[..., 1] * size + pixels[..., 0])[hit]
    keys.scatter_reduce_(0, places, (bits << 32) | faces[:, None].expand_as(hit)[hit], "amin")


def _barycentric(corners: Tensor, points: Tensor) -> Tensor:
    """Barycentric coordinates [F,P,3] of points [F,P,2] in triangles [F,3,2] of the plane; NaN where they have no area."""
    a, b, c = (corner[:, None] for corner in corners.unbind(dim=1))

    def cross(u: Tensor, v: Tensor) -> Tensor:
        return u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]

    whole = cross(b - a, c - a)
    parts = [cross(b - points, c - points), cross(c - points, a - points), cross(a - points, b - points)]
    return torch.stack(parts, dim=-1) / whole[..., None]
