"""Curvature and distances on meshes against closed forms: sphere, torus, plane, hinge, broken meshes, several components."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.metrics.mesh_curvature import measure_curvature, vertex_curvature
from priorzoo.metrics.mesh_geodesics import measure_geodesics, surface_graph
from priorzoo.shapes.meshes import Mesh
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

SQUARE = (2 + math.sqrt(2) + 5 * math.log(1 + math.sqrt(2))) / 15  # mean distance of two points of the unit square


def grid(rows: int, columns: int, *, round_rows: bool = False, round_columns: bool = False) -> Tensor:
    """Faces of a rows x columns grid of vertices, two triangles a cell, closed in the directions that are round."""
    index = torch.arange(rows * columns).view(rows, columns)
    if round_rows:
        index = torch.cat([index, index[:1]])
    if round_columns:
        index = torch.cat([index, index[:, :1]], dim=1)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    return torch.cat([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)]).reshape(-1, 3)


def plane(n: int = 12) -> Mesh:
    axis = torch.linspace(0, 1, n, dtype=torch.float64)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    return Mesh(torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3), grid(n, n))


def sphere(radius: float = 1.0, levels: int = 3) -> Mesh:
    """An octahedron, each face cut in four, ``levels`` times, on the sphere."""
    vertices = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    for _ in range(levels):
        pairs = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
        edges, numbers = pairs.unique(dim=0, return_inverse=True)
        x, y, z = (numbers + len(vertices)).view(3, -1)
        vertices = torch.cat([vertices, vertices[edges].sum(dim=1) / vertices[edges].sum(dim=1).norm(dim=-1, keepdim=True)])
        a, b, c = faces.T
        faces = torch.cat([torch.stack(f, -1) for f in ((a, x, z), (b, y, x), (c, z, y), (x, y, z))])
    return Mesh(vertices * radius, faces)


def torus(large: float = 1.0, small: float = 0.4, n: int = 64) -> Mesh:
    u, v = torch.meshgrid(*(torch.arange(k, dtype=torch.float64) * (2 * math.pi / k) for k in (n, n // 2)), indexing="ij")
    ring = large + small * v.cos()
    return Mesh(
        torch.stack([ring * u.cos(), ring * u.sin(), small * v.sin()], -1).view(-1, 3),
        grid(n, n // 2, round_rows=True, round_columns=True),
    )


def scaled(mesh: Mesh, factor: float) -> Mesh:
    return Mesh(mesh.vertices * factor, mesh.faces)


def together(a: Mesh, b: Mesh) -> Mesh:
    return Mesh(torch.cat([a.vertices, b.vertices]), torch.cat([a.faces, b.faces + len(a.vertices)]))


@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_a_spheres_curvature(radius):
    got = measure_curvature(sphere(radius))
    assert got.total == pytest.approx(4 * math.pi, rel=1e-9)
    assert got.mean == pytest.approx(1 / radius**2, rel=0.02)  # the flat faces have a little less area than the sphere
    assert got.area == pytest.approx(4 * math.pi * radius**2, rel=0.02)


def test_a_toruss_curvature():
    got = measure_curvature(torus())
    assert got.signed == pytest.approx(0, abs=1e-9)
    assert got.total == pytest.approx(8 * math.pi, rel=0.01)
    assert got.mean == pytest.approx(8 * math.pi / (4 * math.pi**2 * 0.4), rel=0.01)


def test_a_planes_curvature_and_the_boundary_that_takes_no_part():
    deficits, areas, interior = vertex_curvature(plane(4))
    assert interior.sum() == 4
    assert abs(deficits[0]) > 1  # the corner of the square: its angles are only a quarter of a circle
    assert float(areas.sum()) == pytest.approx(1)
    got = measure_curvature(plane(4))
    assert got.vertices == 4
    assert got.total == pytest.approx(0, abs=1e-12)
    assert got.area == pytest.approx(4 / 9)


def test_a_cubes_corners_hold_all_its_curvature():
    points = torch.tensor([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 1.0) for z in (0.0, 1.0)], dtype=torch.float64)
    quads = torch.tensor([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    cube = Mesh(points, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
    deficits, _, interior = vertex_curvature(cube)
    assert interior.all()
    assert torch.allclose(torch.from_numpy(deficits), torch.full((8,), math.pi / 2, dtype=torch.float64))
    assert measure_curvature(cube).mean == pytest.approx(4 * math.pi / 6)


def test_a_saddle_counts_as_a_cap_does():
    """A ring of n points at (1, h (-1)^i): the angle at the centre between neighbours has the cosine (cos(2 pi / n) - h^2) / (1 + h^2)."""
    count, h = 6, 0.8
    angles = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)
    height = h * (-1.0) ** torch.arange(count, dtype=torch.float64)
    centre = torch.zeros(1, 3, dtype=torch.float64)
    fan = torch.tensor([[0, 1 + i, 1 + (i + 1) % count] for i in range(count)])
    got = measure_curvature(Mesh(torch.cat([centre, torch.stack([angles.cos(), angles.sin(), height], -1)]), fan))
    deficit = 2 * math.pi - count * math.acos((math.cos(2 * math.pi / count) - h**2) / (1 + h**2))
    assert deficit < -1
    assert got.vertices == 1
    assert got.signed == pytest.approx(deficit)
    assert got.total == pytest.approx(-deficit)


def test_curvature_and_scale():
    one, five = measure_curvature(torus(n=24)), measure_curvature(scaled(torus(n=24), 5.0))
    assert five.mean == pytest.approx(one.mean / 25)
    assert five.total == pytest.approx(one.total)


def test_curvature_of_several_components_adds_up():
    got = measure_curvature(together(sphere(1.0), sphere(2.0)))
    assert got.total == pytest.approx(8 * math.pi)
    assert got.mean == pytest.approx(8 * math.pi / (20 * math.pi), rel=0.02)


def test_curvature_of_nothing_is_not_a_number():
    single = Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]))
    assert math.isnan(measure_curvature(single).mean)
    assert measure_curvature(single).vertices == 0
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert math.isnan(measure_curvature(empty).mean)


def test_vertices_that_nobody_uses_and_faces_with_a_corner_twice_take_no_part():
    whole = sphere(levels=1)
    extra = Mesh(torch.cat([whole.vertices, torch.ones(1, 3, dtype=torch.float64)]), torch.cat([whole.faces, torch.tensor([[0, 0, 2]])]))
    assert measure_curvature(extra) == measure_curvature(whole)


def test_an_edge_of_three_faces_makes_its_ends_no_interior_vertices():
    whole = sphere(levels=1)
    a, b = whole.faces[0, :2].tolist()
    fin = Mesh(
        torch.cat([whole.vertices, torch.full((1, 3), 2.0, dtype=torch.float64)]), torch.cat([whole.faces, torch.tensor([[a, b, 18]])])
    )
    assert measure_curvature(fin).vertices == measure_curvature(whole).vertices - 2


def test_two_closed_shapes_that_share_an_edge_have_no_interior_vertices_on_it():
    corners = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]], dtype=torch.float64)
    faces = [f for c, d in ((2, 3), (4, 5)) for f in ([0, 1, c], [0, d, 1], [0, c, d], [1, d, c])]
    assert vertex_curvature(Mesh(corners, torch.tensor(faces)))[2].tolist() == [False, False, True, True, True, True]


@pytest.mark.parametrize("radius", [1.0, 0.2])
def test_distances_on_a_sphere(radius):
    got = measure_geodesics(sphere(radius), sources=6)
    assert got.mean == pytest.approx(math.pi * radius / 2, rel=0.02)
    assert got.normalised == pytest.approx(math.sqrt(math.pi) / 4, rel=0.02)
    assert got.reached == 1.0


def test_distances_on_a_plane():
    got = measure_geodesics(plane(), sources=144)
    assert got.mean == pytest.approx(SQUARE, rel=0.05)  # 144 sources leave a deviation of 0.016
    assert got.mean == got.normalised


def test_paths_are_never_shorter_than_the_straight_ones_and_points_on_edges_shorten_them():
    square = plane(9)
    true = torch.cdist(square.vertices[:1], square.vertices)[0]
    lengths = [torch.from_numpy(dijkstra(surface_graph(square, k), directed=False, indices=0)[:81]) for k in (0, 1, 3)]
    for got in lengths:
        assert bool((got >= true - 1e-12).all())
    excess = [float((got.sum() / true.sum()) - 1) for got in lengths]
    assert excess[0] > 3 * excess[1] > 3 * excess[2]
    assert excess[2] < 0.02


def test_a_path_crosses_the_faces_of_a_hinge():
    """Two right triangles with a common edge of length 2, folded by any angle: unfolded, their far corners are 2 apart."""
    for fold in (0.0, 0.7, math.pi / 2):
        corners = [[0.0, -1, 0], [0, 1, 0], [1, 0, 0], [-math.cos(fold), 0, math.sin(fold)]]
        hinge = Mesh(torch.tensor(corners, dtype=torch.float64), torch.tensor([[0, 1, 2], [1, 0, 3]]))
        edges, points = (dijkstra(surface_graph(hinge, k), directed=False, indices=2)[3] for k in (0, 1))
        assert edges == pytest.approx(2 * math.sqrt(2))
        assert points == pytest.approx(2)


def test_a_face_named_twice_changes_no_path():
    once = plane(3)
    twice = Mesh(once.vertices, torch.cat([once.faces, once.faces[:, [1, 0, 2]]]))
    assert (surface_graph(once, 2) != surface_graph(twice, 2)).nnz == 0


def test_vertices_at_one_place_are_at_no_distance():
    corners = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    mesh = Mesh(corners, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    assert dijkstra(surface_graph(mesh, 1), directed=False, indices=1)[0] == pytest.approx(0, abs=1e-12)


def test_distances_in_several_components():
    far = sphere(1.0, 2)
    far = Mesh(far.vertices + 10, far.faces)
    both, one = measure_geodesics(together(sphere(1.0, 2), far), sources=20), measure_geodesics(far, sources=20)
    assert both.reached == pytest.approx(0.5)
    assert both.mean == pytest.approx(one.mean, rel=0.02)


def test_sources_are_drawn_by_area_not_by_vertices():
    """A square of area 100 and four vertices, one of area 1 and 100 vertices: (100^2 + 1) / 101^2 is reached on average."""
    got = measure_geodesics(together(scaled(plane(2), 10.0), plane(10)), sources=50, edge_points=0)
    assert got.reached == pytest.approx((100**2 + 1) / 101**2, abs=0.05)


def test_distances_and_scale_and_seed():
    mesh = torus(n=24)
    one, five = measure_geodesics(mesh, sources=4), measure_geodesics(scaled(mesh, 5.0), sources=4)
    assert five.mean == pytest.approx(5 * one.mean)
    assert five.normalised == pytest.approx(one.normalised)
    assert measure_geodesics(mesh, sources=4) == one
    assert measure_geodesics(mesh, sources=4, seed=1) != one


def test_distances_do_not_depend_on_how_finely_a_part_is_cut():
    """A quarter of the square has most of the faces; sources and targets are uniform in area all the same."""
    rows = torch.cat([torch.linspace(0, 0.5, 5), torch.linspace(0.5, 1, 17)[1:]]).double()
    x, y = torch.meshgrid(rows, rows, indexing="ij")
    uneven = Mesh(torch.stack([x, y, torch.zeros_like(x)], -1).view(-1, 3), grid(21, 21))
    by_vertices = float(torch.cdist(uneven.vertices, uneven.vertices).mean())
    assert by_vertices < 0.9 * SQUARE
    assert measure_geodesics(uneven, sources=100).mean == pytest.approx(SQUARE, rel=0.05)


def test_no_area_gives_no_number_and_bad_counts_are_refused():
    empty = Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert math.isnan(measure_geodesics(empty).mean)
    with pytest.raises(PriorzooError, match="sources must be at least 1, got 0"):
        measure_geodesics(plane(3), sources=0)
    with pytest.raises(PriorzooError, match="edge_points must be at least 0, got -1"):
        measure_geodesics(plane(3), edge_points=-1)
