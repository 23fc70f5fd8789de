"""Mesh: the one type of a triangle mesh; who extracts, measures, draws or writes one exchanges these."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import PriorzooError


@dataclass
class Mesh:
    """Triangles in the world's frame (y up, the face looks to +z), counter-clockwise seen from outside.

    ``vertices`` [V,3] floating, world units; ``faces`` [F,3] int64, indices into the vertices; ``colours`` [V,3] floating
    in [0,1], red first, as a display takes them (sRGB), or None. Raises PriorzooError for shapes or indices that do not fit.

    >>> corner = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    >>> len(corner), corner.face_normals()[0].mul(3**0.5).round(decimals=4).tolist()
    (1, [1.0, 1.0, 1.0])
    """

    vertices: Tensor
    faces: Tensor
    colours: Tensor | None = None

    def __post_init__(self) -> None:
        for name, tensor in (("vertices", self.vertices), ("faces", self.faces), ("colours", self.colours)):
            if tensor is not None and (tensor.ndim != 2 or tensor.shape[1] != 3):
                raise PriorzooError(f"mesh: {name} have shape [n,3], got {list(tensor.shape)}")
        if self.faces.dtype != torch.int64:
            raise PriorzooError(f"mesh: faces are int64 indices, got {self.faces.dtype}")
        count = len(self.vertices)
        if self.faces.numel() and (int(self.faces.min()) < 0 or int(self.faces.max()) >= count):
            raise PriorzooError(f"mesh: faces point to vertices {int(self.faces.min())} .. {int(self.faces.max())}, there are {count}")
        if self.colours is not None and len(self.colours) != count:
            raise PriorzooError(f"mesh: {len(self.colours)} colours for {count} vertices")

    def __len__(self) -> int:
        return len(self.faces)

    def to(self, device: torch.device | str) -> Mesh:
        """The same mesh on a device."""
        colours = None if self.colours is None else self.colours.to(device)
        return Mesh(self.vertices.to(device), self.faces.to(device), colours)

    def corners(self) -> Tensor:
        """Corners of every triangle, [F,3 corners,3]."""
        return self.vertices[self.faces]

    def area_vectors(self) -> Tensor:
        """Half the cross product of two edges of every triangle, [F,3]: its length is the area, its direction outwards."""
        a, b, c = self.corners().unbind(dim=1)
        return torch.linalg.cross(b - a, c - a, dim=-1) / 2

    def face_normals(self) -> Tensor:
        """Unit normals of the triangles, [F,3]; 0 where a triangle has no area."""
        return torch.nn.functional.normalize(self.area_vectors(), dim=-1, eps=1e-20)

    def vertex_normals(self) -> Tensor:
        """Unit normals at the vertices, [V,3]: means of those of the triangles around, weighted by area."""
        total = torch.zeros_like(self.vertices)
        vectors = self.area_vectors()
        for corner in range(3):
            total.index_add_(0, self.faces[:, corner], vectors)
        return torch.nn.functional.normalize(total, dim=-1, eps=1e-20)

    def with_faces(self, keep: Tensor) -> Mesh:
        """The mesh of the faces that ``keep`` [F] (boolean) names, without the vertices that none of them uses."""
        faces = self.faces[keep]
        used, renumbered = torch.unique(faces, return_inverse=True)
        colours = None if self.colours is None else self.colours[used]
        return Mesh(self.vertices[used], renumbered.reshape(-1, 3), colours)
