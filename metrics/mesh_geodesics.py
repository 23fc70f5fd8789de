"""How far it is along a mesh's surface from one point to another (MGD of GOF's paper, by a definition of our own)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import PriorzooError
from ..core.streams import derived_seed
from ..shapes.meshes import Mesh

SOURCES = 32
EDGE_POINTS = 3
"""Three points on every edge make paths up to about one part in a hundred too long; none (edges alone), up to one in five."""


@dataclass(frozen=True)
class Geodesics:
    """Distances along one mesh's surface.

    ``mean`` in the mesh's units of length; ``normalised`` = mean / sqrt(area), which no scaling changes; ``reached`` is the share of the
    area that a source reaches, 1 where all is one component; ``sources`` how many there were. NaN for a mesh without area.
    """

    mean: float
    normalised: float
    reached: float
    sources: int


def measure_geodesics(mesh: Mesh, *, sources: int = SOURCES, seed: int = 0, edge_points: int = EDGE_POINTS) -> Geodesics:
    """Mean distance along the surface between two random points of the mesh, uniform in area.

    ``sources`` vertices are drawn from ``seed`` with probabilities A_v / sum A (A_v a third of the faces around), with replacement. From
    each the shortest paths to all vertices of its component are found, and averaged with the weights A_v; the result is the mean over the
    sources. Pairs in different components have no distance and take no part. Paths run in a graph (`surface_graph`), so they are never
    shorter than the surface's own. GOF's paper (supplementary, table 3) names the measure and publishes no definition.

    Args: sources >= 1; edge_points >= 0, see `surface_graph`. Raises PriorzooError for others.

    >>> import torch
    >>> square = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 2, 3]]))
    >>> measure_geodesics(square, sources=4).reached
    1.0
    """
    from scipy.sparse.csgraph import dijkstra

    for name, value, least in (("sources", sources, 1), ("edge_points", edge_points, 0)):
        if value < least:
            raise PriorzooError(f"geodesics: {name} must be at least {least}, got {value}")
    areas = _vertex_areas(mesh)
    area = float(areas.sum())
    if not area > 0:
        return Geodesics(math.nan, math.nan, math.nan, 0)
    draw = np.random.default_rng(derived_seed(seed, "geodesics"))
    starts = draw.choice(len(areas), size=sources, p=areas / area)
    graph = surface_graph(mesh, edge_points)
    means, shares = [], []
    for start in starts:  # one at a time: a fine mesh has millions of points on its edges
        distances = dijkstra(graph, directed=False, indices=start)[: len(areas)]
        met = np.isfinite(distances)
        means.append(float(np.average(distances[met], weights=areas[met])))
        shares.append(float(areas[met].sum()) / area)
    mean = float(np.mean(means))
    return Geodesics(mean, mean / math.sqrt(area), float(np.mean(shares)), sources)


def surface_graph(mesh: Mesh, edge_points: int) -> Any:
    """The graph of straight ways over the faces as a sparse matrix [N,N] of lengths; the first V nodes are the vertices.

    ``edge_points`` nodes lie at equal distances on every edge. Neighbours along an edge are connected, and so is every node of a face's
    border with those of its other edges (Lanthier et al. 2001): paths cross faces instead of following their edges.
    """
    from scipy.sparse import coo_array

    vertices = mesh.vertices.detach().double().cpu().numpy()
    a, b, c = np.sort(mesh.faces.cpu().numpy(), axis=1).T
    proper = (a != b) & (b != c)
    # Each face once: the sparse matrix would add the lengths of a pair that is named twice.
    faces = np.unique(np.stack([a, b, c], axis=1)[proper], axis=0)
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [0, 2]]])
    edges, numbers = np.unique(pairs, axis=0, return_inverse=True)
    sides = numbers.reshape(3, -1)  # the edges (0,1), (1,2), (0,2) of every face
    share = (np.arange(edge_points) + 1.0) / (edge_points + 1)
    between = vertices[edges[:, 0], None] * (1 - share[:, None]) + vertices[edges[:, 1], None] * share[:, None]
    nodes = np.concatenate([vertices, between.reshape(-1, 3)])
    inner = len(vertices) + np.arange(len(edges) * edge_points).reshape(len(edges), edge_points)
    chains = np.concatenate([edges[:, :1], inner, edges[:, 1:]], axis=1)
    links: list[Any] = [(chains[:, :-1], chains[:, 1:])]
    for i, opposite in enumerate((2, 0, 1)):
        here, next_side = inner[sides[i]], inner[sides[(i + 1) % 3]]
        links.append(np.broadcast_arrays(faces[:, opposite, None], here))
        links.append(np.broadcast_arrays(here[:, :, None], next_side[:, None, :]))
    starts, ends = (np.concatenate([np.ravel(link[side]) for link in links]) for side in (0, 1))
    # A length of 0 would count as no connection.
    lengths = np.maximum(np.linalg.norm(nodes[starts] - nodes[ends], axis=-1), np.finfo(np.float64).tiny)
    return coo_array((lengths, (starts, ends)), shape=(len(nodes), len(nodes))).tocsr()


def _vertex_areas(mesh: Mesh) -> NDArray[np.float64]:
    """A third of the area of the faces around each vertex, [V]."""
    share = mesh.area_vectors().detach().double().norm(dim=-1).cpu().numpy() / 3
    areas = np.zeros(len(mesh.vertices))
    for corner in mesh.faces.cpu().numpy().T:
        np.add.at(areas, corner, share)
    return areas
