"""Losses on triangle meshes: how far vertices are from their neighbours' mean, how sharp edges are, how long they are.

Plain torch, differentiable in the vertices; the values are those of PyTorch3D's losses of the same names for one mesh.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import PriorzooError
from .meshes import Mesh


def unique_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edges [E,2] of triangles [F,3], each once, and the edge of every side [F,3]; side i lies across from corner i.

    >>> edges, sides = unique_edges(torch.tensor([[0, 1, 2], [2, 1, 3]]))
    >>> edges.tolist(), sides.tolist()
    ([[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]], [[2, 1, 0], [3, 4, 2]])
    """
    sides = torch.stack([faces[:, [1, 2]], faces[:, [2, 0]], faces[:, [0, 1]]], dim=1).sort(dim=2).values
    edges, which = torch.unique(sides.reshape(-1, 2), dim=0, return_inverse=True)
    return edges, which.reshape(-1, 3)


def laplacian_smoothing(mesh: Mesh) -> Tensor:
    """Mean distance of the vertices to the mean of their neighbours.

    mean_i || 1/|N(i)| sum_{j in N(i)} v_j - v_i || with the neighbours N(i) along edges, the uniform Laplacian (Nealen et al. 2006,
    Laplacian mesh optimization, section 3). Vertices that no triangle uses cost nothing. World units; it also
    shrinks a round surface and pulls a boundary inwards. Raises PriorzooError for a mesh without triangles.

    >>> axes = torch.eye(3)
    >>> octahedron = Mesh(torch.cat([axes, -axes]), torch.tensor(
    ...     [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]))
    >>> laplacian_smoothing(octahedron).item()
    1.0
    """
    _check_not_empty(mesh, "laplacian_smoothing")
    edges, _ = unique_edges(mesh.faces)
    first, second = edges.unbind(dim=1)
    total = torch.zeros_like(mesh.vertices)
    total = total.index_add(0, first, mesh.vertices[second]).index_add(0, second, mesh.vertices[first])
    count = torch.bincount(edges.flatten(), minlength=len(mesh.vertices))
    used = count > 0
    return (total[used] / count[used, None] - mesh.vertices[used]).norm(dim=1).sum() / len(mesh.vertices)


def normal_consistency(mesh: Mesh) -> Tensor:
    """Mean of 1 - cos of the angle by which the surface bends at an edge: 0 where it is flat, 1 at a right angle, 2 folded back.

    Over all pairs of triangles that share an edge (an edge of n triangles has n (n - 1) / 2), without those of which one has no area.
    The orientation of the triangles does not matter. Raises PriorzooError for a mesh without triangles.

    >>> tent = Mesh(torch.tensor([[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 1]]), torch.tensor([[0, 2, 1], [0, 1, 3]]))
    >>> normal_consistency(tent).item()
    1.0
    """
    _check_not_empty(mesh, "normal_consistency")
    first, second = _pairs_at_edges(mesh.faces)
    normals = mesh.area_vectors()
    # Triangles of one orientation run through their common edge in opposite directions; otherwise one normal is turned round.
    sign = torch.where(_direction(mesh.faces, first) == _direction(mesh.faces, second), -1.0, 1.0).to(normals)
    one, other = normals[first // 3], normals[second // 3]
    lengths = one.detach().norm(dim=1) * other.detach().norm(dim=1)
    solid = lengths > 0
    if not bool(solid.any()):
        return mesh.vertices.sum() * 0.0
    one, other = (torch.nn.functional.normalize(n[solid], dim=1, eps=1e-20) for n in (one, other))
    return (1.0 - sign[solid] * (one * other).sum(dim=1)).mean()


def edge_length(mesh: Mesh, target: float = 0.0) -> Tensor:
    """Mean of the squared difference between an edge's length and ``target`` (world units), over all edges, each once.

    Raises PriorzooError for a mesh without triangles.

    >>> corner = Mesh(torch.tensor([[0.0, 0, 0], [3, 0, 0], [0, 4, 0]]), torch.tensor([[0, 1, 2]]))
    >>> edge_length(corner).item(), edge_length(corner, target=4.0).item()
    (16.66666603088379, 0.6666666865348816)
    """
    _check_not_empty(mesh, "edge_length")
    edges, _ = unique_edges(mesh.faces)
    ends = mesh.vertices[edges]
    return ((ends[:, 0] - ends[:, 1]).norm(dim=1) - target).square().mean()


def _pairs_at_edges(faces: Tensor) -> tuple[Tensor, Tensor]:
    """All pairs of sides that are the same edge: numbers 3 face + side, [P] and [P]."""
    _, which = unique_edges(faces)
    order = which.flatten().argsort(stable=True)
    edge = which.flatten()[order]
    first, second = [], []
    step = 1
    while step < len(edge) and bool((same := edge[step:] == edge[:-step]).any()):
        first.append(order[:-step][same])
        second.append(order[step:][same])
        step += 1
    none = order[:0]
    return torch.cat([none, *first]), torch.cat([none, *second])


def _direction(faces: Tensor, sides: Tensor) -> Tensor:
    """Whether a triangle runs through its side from the vertex of the lower number to that of the higher."""
    corners, side = faces[sides // 3], sides % 3
    ends = [corners.gather(1, ((side + i) % 3)[:, None])[:, 0] for i in (1, 2)]
    return ends[0] < ends[1]


def _check_not_empty(mesh: Mesh, what: str) -> None:
    if len(mesh) == 0:
        raise PriorzooError(f"{what}: the mesh has no triangles")
