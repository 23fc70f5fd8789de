"""What a mesh is made of: components, holes, watertightness, Euler characteristic, area and volume."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .meshes import Mesh


@dataclass(frozen=True)
class MeshReport:
    """Counts and sizes of one mesh; lengths are world units, ``volume`` is None where the mesh is not watertight.

    ``holes`` are the loops of edges that only one face has (``boundary_edges``). An edge of more than two faces is not
    manifold. ``euler`` is V - E + F of the vertices that faces use: 2 for every closed component without a handle, 0 for
    a torus.
    """

    vertices: int
    faces: int
    components: int
    boundary_edges: int
    holes: int
    edges_not_manifold: int
    watertight: bool
    euler: int
    area: float
    volume: float | None

    def to_plain(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    def line(self) -> str:
        """The same as one line of text."""
        holes = "watertight" if self.watertight else f"{self.holes} holes ({self.boundary_edges} boundary edges)"
        volume = "" if self.volume is None else f", volume {self.volume:.4g}"
        parts = "1 component" if self.components == 1 else f"{self.components} components"
        return f"{self.vertices} vertices, {self.faces} faces, {parts}, {holes}, Euler {self.euler}, area {self.area:.4g}{volume}"


def measure_mesh(mesh: Mesh) -> MeshReport:
    """Count and measure a mesh.

    >>> tetrahedron = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ...                    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
    >>> report = measure_mesh(tetrahedron)
    >>> report.euler, report.watertight, round(report.volume, 4)
    (2, True, 0.1667)
    """
    edges, counts = _edges(mesh)
    boundary = edges[counts == 1]
    tangled = int((counts > 2).sum())
    watertight = len(mesh) > 0 and len(boundary) == 0 and tangled == 0
    used = len(np.unique(mesh.faces.cpu().numpy()))
    return MeshReport(
        vertices=len(mesh.vertices),
        faces=len(mesh),
        components=len(np.unique(_labels(mesh.faces.cpu().numpy()))) if len(mesh) else 0,
        boundary_edges=len(boundary),
        holes=len(np.unique(_labels(boundary))) if len(boundary) else 0,
        edges_not_manifold=tangled,
        watertight=watertight,
        euler=used - len(edges) + len(mesh),
        area=float(mesh.area_vectors().double().norm(dim=-1).sum()),
        volume=enclosed_volume(mesh) if watertight else None,
    )


def enclosed_volume(mesh: Mesh) -> float:
    """Volume inside a watertight mesh, cubic world units: sum over faces of a . (b x c) / 6; negative when inside out."""
    a, b, c = mesh.corners().double().unbind(dim=1)
    return float((a * torch.linalg.cross(b, c, dim=-1)).sum()) / 6.0


def component_labels(mesh: Mesh) -> Tensor:
    """Which component each face belongs to, [F] int64: 0, 1, ... by falling area. Components share no vertex."""
    _, labels = np.unique(_labels(mesh.faces.cpu().numpy()), return_inverse=True)
    areas = np.bincount(labels, weights=mesh.area_vectors().double().norm(dim=-1).cpu().numpy())
    order = np.argsort(-areas, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return torch.from_numpy(rank[labels])


def largest_component(mesh: Mesh) -> Mesh:
    """The component of the largest area alone; a mesh without faces as it is."""
    return mesh.with_faces(component_labels(mesh).to(mesh.faces.device) == 0) if len(mesh) else mesh


def _edges(mesh: Mesh) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Undirected edges [E,2] and how many faces have each."""
    faces = mesh.faces.cpu().numpy()
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    keys, counts = np.unique(pairs[:, 0] * max(len(mesh.vertices), 1) + pairs[:, 1], return_counts=True)
    return np.stack(np.divmod(keys, max(len(mesh.vertices), 1)), axis=1), counts


def _labels(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """One number for each row of vertex indices: the same for rows that vertices connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    vertices, numbered = np.unique(cells, return_inverse=True)
    numbered = numbered.reshape(cells.shape)
    starts = np.concatenate([numbered[:, i] for i in range(cells.shape[1] - 1)])
    ends = np.concatenate([numbered[:, i + 1] for i in range(cells.shape[1] - 1)])
    graph = coo_array((np.ones(len(starts), np.int8), (starts, ends)), shape=(len(vertices),) * 2)
    _, labels = connected_components(graph, directed=False)
    out: NDArray[np.int64] = labels.astype(np.int64)[numbered[:, 0]]
    return out
