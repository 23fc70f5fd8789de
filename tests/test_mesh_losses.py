"""Losses on meshes: values by hand, zeros, invariances, gradients, extracted surfaces."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import FieldSample
from priorzoo.shapes.mesh_extraction import extract_mesh
from priorzoo.shapes.mesh_losses import edge_length, laplacian_smoothing, normal_consistency, unique_edges
from priorzoo.shapes.meshes import Mesh
from torch import Tensor

LOSSES = (laplacian_smoothing, normal_consistency, edge_length)


def cube(side: float = 1.0) -> Mesh:
    """Twelve triangles; corner number 4x + 2y + z, outwards."""
    corners = torch.cartesian_prod(*[torch.tensor([0.0, side], dtype=torch.float64)] * 3)
    squares = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    return Mesh(corners, torch.tensor([t for a, b, c, d in squares for t in ((a, b, c), (a, c, d))]))


def plane(count: int = 4) -> Mesh:
    """A tilted square of count x count vertices."""
    x, y = (g.flatten().double() for g in torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij"))
    faces = [(i * count + j, (i + 1) * count + j, i * count + j + 1) for i in range(count - 1) for j in range(count - 1)]
    faces += [(b, b + 1, c) for _, b, c in faces]
    return Mesh(torch.stack([x, y, 0.3 * x - 0.7 * y + 2], dim=1), torch.tensor(faces))


def ball(resolution: int = 24, radius: float = 0.35) -> Mesh:
    class Ball:
        kind = "sdf"
        extent = 0.5

        def __call__(self, points: Tensor) -> FieldSample:
            distance = points.norm(dim=-1) - radius
            return FieldSample(-distance, distance)

    found = extract_mesh(Ball(), resolution=resolution)
    return Mesh(found.vertices.double(), found.faces)


def test_a_cube_by_hand() -> None:
    """12 edges of length 1 at right angles, 6 diagonals in flat squares."""
    mesh = cube()
    assert mesh.area_vectors().sum(dim=0).abs().max() < 1e-12 and torch.equal(mesh.face_normals()[0], torch.tensor([-1.0, 0, 0]).double())
    assert len(unique_edges(mesh.faces)[0]) == 18
    assert normal_consistency(mesh).item() == pytest.approx(12 / 18)
    assert edge_length(mesh).item() == pytest.approx((12 * 1 + 6 * 2) / 18)
    assert edge_length(mesh, target=1.0).item() == pytest.approx(6 * (math.sqrt(2) - 1) ** 2 / 18)


def test_a_tetrahedron_by_hand() -> None:
    """Each vertex's neighbours are the other three, whose mean is -v/3; the faces' normals are at cos = -1/3."""
    vertices = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]))
    assert laplacian_smoothing(mesh).item() == pytest.approx(4 / 3 * math.sqrt(3))
    assert normal_consistency(mesh).item() == pytest.approx(4 / 3)
    assert edge_length(mesh).item() == pytest.approx(8.0)


def test_a_plane_does_not_bend() -> None:
    mesh = plane()
    assert normal_consistency(mesh).item() == pytest.approx(0.0, abs=1e-12)
    inner = Mesh(mesh.vertices.clone().requires_grad_(), mesh.faces)
    (gradient,) = torch.autograd.grad(laplacian_smoothing(inner), inner.vertices)
    assert gradient[[5, 6, 9, 10]].isfinite().all(), "vertices at their neighbours' mean have a gradient"


def test_folded_back_is_two() -> None:
    vertices = torch.tensor([[0.0, 0, 0], [0, 1, 0], [1, 0, 0], [2, 0, 0]])
    assert normal_consistency(Mesh(vertices, torch.tensor([[0, 2, 1], [0, 1, 3]]))).item() == pytest.approx(2.0)


@pytest.mark.parametrize("loss", LOSSES)
def test_order_and_orientation_of_triangles_do_not_matter(loss: Callable[[Mesh], Tensor]) -> None:
    mesh = ball(8)
    wanted = loss(mesh)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(mesh), generator=generator)
    turned = torch.where(torch.rand(len(mesh), 1, generator=generator) < 0.5, mesh.faces, mesh.faces[:, [1, 0, 2]])
    assert torch.allclose(loss(Mesh(mesh.vertices, turned[order])), wanted)


@pytest.mark.parametrize(("loss", "power"), [(laplacian_smoothing, 1), (normal_consistency, 0), (edge_length, 2)])
def test_size_and_place(loss: Callable[[Mesh], Tensor], power: int) -> None:
    mesh = ball(8)
    moved = Mesh(3 * mesh.vertices + torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), mesh.faces)
    assert loss(moved).item() == pytest.approx(3**power * loss(mesh).item())


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient(loss: Callable[[Mesh], Tensor]) -> None:
    mesh = cube()
    noise = 0.1 * torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: loss(Mesh(v, mesh.faces)), (mesh.vertices + noise).requires_grad_())


def test_an_edge_of_three_triangles_counts_three_pairs() -> None:
    """At 120 degrees to each other: cos of the turn is 1/2 for every pair."""
    angles = torch.arange(3, dtype=torch.float64) * 2 * math.pi / 3
    tips = torch.stack([angles.cos(), angles.sin(), torch.full_like(angles, 0.5)], dim=1)
    vertices = torch.cat([torch.tensor([[0.0, 0, 0], [0, 0, 1]], dtype=torch.float64), tips])
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]))
    assert normal_consistency(mesh).item() == pytest.approx(0.5)


def test_triangles_without_area_and_unused_vertices_cost_nothing() -> None:
    mesh = cube()
    flat = Mesh(torch.cat([mesh.vertices, torch.full((1, 3), 9.0).double()]), torch.cat([mesh.faces, torch.tensor([[0, 1, 1]])]))
    vertices = flat.vertices.clone().requires_grad_()
    bent = normal_consistency(Mesh(vertices, flat.faces))
    assert bent.item() == pytest.approx(12 / 18)
    assert torch.autograd.grad(bent, vertices)[0].isfinite().all()
    assert laplacian_smoothing(Mesh(flat.vertices, mesh.faces)).item() == pytest.approx(8 / 9 * laplacian_smoothing(mesh).item())
    alone = Mesh(vertices, mesh.faces[:1])
    assert normal_consistency(alone).item() == 0.0 and torch.autograd.grad(normal_consistency(alone), vertices)[0].abs().sum() == 0


def test_an_extracted_ball_is_smoother_than_a_rough_one_and_a_few_steps_help() -> None:
    mesh = ball()
    rough = mesh.vertices + 0.01 * torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def total(vertices: Tensor) -> Tensor:
        moved = Mesh(vertices, mesh.faces)
        return laplacian_smoothing(moved) + 0.1 * normal_consistency(moved) + edge_length(moved)

    assert total(mesh.vertices) < 0.5 * total(rough)
    vertices = rough.clone().requires_grad_()
    optimiser = torch.optim.Adam([vertices], 1e-3)
    for _ in range(20):
        optimiser.zero_grad()
        total(vertices).backward()
        optimiser.step()
    assert total(vertices) < 0.6 * total(rough)
    assert (vertices.norm(dim=1) - 0.35).abs().mean() < (rough.norm(dim=1) - 0.35).abs().mean()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_mesh_without_triangles_is_refused(loss: Callable[[Mesh], Tensor]) -> None:
    with pytest.raises(PriorzooError, match=f"{loss.__name__}: the mesh has no triangles"):
        loss(Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)))
