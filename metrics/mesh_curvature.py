"""How much a mesh is curved: mean absolute Gaussian curvature by angle deficit (MC of GOF's paper, by a definition of our own)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..shapes.meshes import Mesh


@dataclass(frozen=True)
class Curvature:
    """Gaussian curvature of one mesh.

    ``mean`` is the area-weighted mean of |K| over the interior vertices, 1 / length^2; ``total`` the integral of |K| in radians, which
    no scaling changes; ``signed`` the integral of K, 2 pi times the Euler characteristic of a closed mesh; ``area`` that of the interior
    vertices; ``vertices`` how many of them there are. Without one, ``mean`` is NaN: nothing was measured.
    """

    mean: float
    total: float
    signed: float
    area: float
    vertices: int


def measure_curvature(mesh: Mesh) -> Curvature:
    """Mean and total absolute Gaussian curvature of a mesh whose faces share their vertices.

    The deficit of a vertex is d_v = 2 pi - sum of the angles of the faces around it, the integral of K over its cell; its area A_v is a
    third of theirs. Over the interior vertices, those with edges of exactly two faces alone, mean = sum |d_v| / sum A_v,
    total = sum |d_v|. Boundary vertices take no part: their angles have no 2 pi to be compared with. Faces with a corner twice are left
    out. GOF's paper (supplementary, table 3) names the measure and publishes no definition.

    >>> import torch
    >>> corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])      # a tetrahedron: each deficit is pi
    >>> tetrahedron = Mesh(corners, torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))
    >>> round(measure_curvature(tetrahedron).total / math.pi, 6)
    4.0
    """
    deficits, areas, interior = vertex_curvature(mesh)
    total, area = float(np.abs(deficits[interior]).sum()), float(areas[interior].sum())
    return Curvature(
        mean=total / area if area > 0 else math.nan,
        total=total,
        signed=float(deficits[interior].sum()),
        area=area,
        vertices=int(interior.sum()),
    )


def vertex_curvature(mesh: Mesh) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Angle deficits in radians, areas and whether it is interior, of every vertex, [V] each.

    K of an interior vertex is its deficit divided by its area.
    """
    vertices = mesh.vertices.detach().double().cpu().numpy()
    faces = mesh.faces.cpu().numpy()
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (c != a)]
    corners = vertices[faces]
    deficits, areas = np.full(len(vertices), 2 * math.pi), np.zeros(len(vertices))
    share = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 6
    for i in range(3):
        u, v = corners[:, (i + 1) % 3] - corners[:, i], corners[:, (i + 2) % 3] - corners[:, i]
        # Unlike the arc cosine, this is exact for slivers too.
        angles = np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), (u * v).sum(axis=-1))
        np.subtract.at(deficits, faces[:, i], angles)
        np.add.at(areas, faces[:, i], share)
    return deficits, areas, _interior(faces, len(vertices))


def _interior(faces: NDArray[np.int64], count: int) -> NDArray[np.bool_]:
    """Vertices of faces, all of whose edges have exactly two faces."""
    pairs = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, uses = np.unique(pairs, axis=0, return_counts=True)
    interior = np.zeros(count, dtype=bool)
    interior[faces] = True
    interior[edges[uses != 2]] = False
    return interior
