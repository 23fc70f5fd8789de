"""Cameras and meshes against PyTorch3D itself: run by `pytest -m pytorch3d` where it is installed, and not otherwise."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.camera_pytorch3d import pytorch3d
from priorzoo.core.errors import PriorzooError
from priorzoo.shapes.mesh_losses import edge_length, laplacian_smoothing, normal_consistency
from priorzoo.shapes.meshes import Mesh
from priorzoo.shapes.pytorch3d_meshes import from_pytorch3d, to_pytorch3d
from torch import Tensor
from torch.testing import assert_close

pytestmark = pytest.mark.pytorch3d
SIZES = (None, (64, 64), (48, 80), (90, 30))


def cameras(skew: float = 0.0) -> Camera:
    camera = Camera.looking_at_origin(torch.tensor([0.3, -0.7, 2.5]), torch.tensor([0.1, 0.4, -0.2]))
    camera.intrinsics[1:] = torch.tensor([[3.0, skew, 0.45], [0.0, 5.0, 0.6], [0.0, 0.0, 1.0]])
    return camera


def points() -> Tensor:
    return torch.rand(3, 50, 3, generator=torch.Generator().manual_seed(0)) - 0.5


@pytest.mark.parametrize("skew", [0.0, 0.05])
@pytest.mark.parametrize("size", SIZES)
def test_its_projection_is_ours(size: tuple[int, int] | None, skew: float) -> None:
    camera, world = cameras(skew), points()
    height, width = size or (64, 64)
    theirs = camera.to_pytorch3d(size).transform_points_screen(world, image_size=(height, width))
    where, depth = camera.project(world)
    assert_close(theirs[..., :2] / torch.tensor([width, height]), where, atol=1e-5, rtol=0)
    view = camera.to_pytorch3d(size).get_world_to_view_transform().transform_points(world)
    assert_close(view[..., 2], depth, atol=1e-5, rtol=0)
    assert_close(camera.to_pytorch3d(size).get_camera_center(), camera.position, atol=1e-5, rtol=0)


@pytest.mark.parametrize("skew", [0.0, 0.05])
@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: tuple[int, int] | None, skew: float) -> None:
    back = Camera.from_pytorch3d(cameras(skew).to_pytorch3d(size))  # the size is in their cameras
    assert_close(back.cam2world, cameras(skew).cam2world, atol=1e-5, rtol=0)
    assert_close(back.intrinsics, cameras(skew).intrinsics, atol=1e-5, rtol=0)


def test_their_cameras_in_pixels() -> None:
    """Focal lengths and principal point in pixels, as other code hands them over: +x right, +y down."""
    theirs = cameras().to_pytorch3d()
    pixels = pytorch3d("renderer.cameras").PerspectiveCameras(
        R=theirs.R,
        T=theirs.T,
        focal_length=torch.tensor([[120.0, 130.0]] * 3),
        principal_point=torch.tensor([[38.0, 25.0]] * 3),
        in_ndc=False,
        image_size=((48, 80),) * 3,
    )
    ours, world = Camera.from_pytorch3d(pixels), points()
    assert_close(ours.intrinsics[0, 0, 0], torch.tensor(120.0 / 80), atol=1e-5, rtol=0)
    screen = pixels.transform_points_screen(world)
    assert_close(screen[..., :2] / torch.tensor([80.0, 48.0]), ours.project(world)[0], atol=1e-5, rtol=0)


def test_their_cameras_by_a_field_of_view() -> None:
    theirs = cameras().to_pytorch3d()
    fov = pytorch3d("renderer.cameras").FoVPerspectiveCameras(R=theirs.R, T=theirs.T, fov=30.0)
    ours, world = Camera.from_pytorch3d(fov), points()
    screen = fov.transform_points_screen(world, image_size=(64, 64))
    assert_close(screen[..., :2] / 64, ours.project(world)[0], atol=1e-5, rtol=0)


def test_what_is_no_pinhole_camera_is_refused() -> None:
    theirs = pytorch3d("renderer.cameras")
    with pytest.raises(PriorzooError, match="FoVOrthographicCameras is no pinhole camera"):
        Camera.from_pytorch3d(theirs.FoVOrthographicCameras())
    with pytest.raises(PriorzooError, match="hold no image_size"):
        Camera.from_pytorch3d(theirs.PerspectiveCameras(in_ndc=False, focal_length=100.0))


def mesh(seed: int = 0, colours: bool = True) -> Mesh:
    """An octahedron with its corners moved."""
    noise = 0.2 * torch.randn(6, 3, generator=torch.Generator().manual_seed(seed))
    faces = [[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]
    vertices = torch.cat([torch.eye(3), -torch.eye(3)]) + noise
    return Mesh(vertices, torch.tensor(faces), vertices.sigmoid() if colours else None)


@pytest.mark.parametrize("colours", [True, False])
def test_meshes_there_and_back(colours: bool) -> None:
    given = [mesh(0, colours), mesh(1, colours)]
    theirs = to_pytorch3d(given)
    assert len(theirs) == 2 and theirs.num_verts_per_mesh().tolist() == [6, 6]
    for back, own in zip(from_pytorch3d(theirs), given, strict=True):
        assert torch.equal(back.vertices, own.vertices) and torch.equal(back.faces, own.faces)
        assert (back.colours is None and own.colours is None) or torch.equal(back.colours, own.colours)
    assert_close(to_pytorch3d(given[0]).faces_normals_packed(), given[0].face_normals())


def test_batches_and_textures_that_do_not_fit_are_refused() -> None:
    with pytest.raises(PriorzooError, match="1 of 2 have"):
        to_pytorch3d([mesh(), mesh(colours=False)])
    with pytest.raises(PriorzooError, match="0 of 0 have"):
        to_pytorch3d([])
    textures = pytorch3d("renderer.mesh.textures")
    theirs = to_pytorch3d(mesh())
    theirs.textures = textures.TexturesVertex([torch.zeros(6, 5)])
    with pytest.raises(PriorzooError, match="vertices have 5 features"):
        from_pytorch3d(theirs)
    theirs.textures = textures.TexturesAtlas([torch.zeros(8, 2, 2, 3)])
    with pytest.raises(PriorzooError, match="TexturesAtlas is not read"):
        from_pytorch3d(theirs)


@pytest.mark.parametrize("seed", range(3))
def test_its_losses_are_ours(seed: int) -> None:
    losses = pytorch3d("loss")
    pairs = [
        (laplacian_smoothing, losses.mesh_laplacian_smoothing),
        (normal_consistency, losses.mesh_normal_consistency),
        (edge_length, losses.mesh_edge_loss),
        (lambda m: edge_length(m, 1.3), lambda m: losses.mesh_edge_loss(m, 1.3)),
    ]
    for ours, theirs in pairs:
        own, other = (mesh(seed, colours=False) for _ in range(2))
        for one in (own, other):
            one.vertices.requires_grad_()
        a, b = ours(own), theirs(to_pytorch3d(other))
        assert_close(a, b, atol=1e-6, rtol=0)
        assert_close(torch.autograd.grad(a, own.vertices)[0], torch.autograd.grad(b, other.vertices)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("index", [0, 1])
def test_its_silhouette_of_our_mesh_is_where_our_camera_sees_it(index: int) -> None:
    """Its rasteriser with our camera: what it draws fills the box of our projected vertices, up to thin tips."""
    rasteriser, small = pytorch3d("renderer.mesh.rasterizer"), mesh()
    small = Mesh(0.15 * small.vertices, small.faces)
    camera, size = cameras()[[index]], (120, 200)
    settings = rasteriser.RasterizationSettings(image_size=size)
    drawn = rasteriser.MeshRasterizer(camera.to_pytorch3d(size), settings)(to_pytorch3d(small)).pix_to_face[0, :, :, 0] >= 0
    where = camera.project(small.vertices[None])[0][0] * torch.tensor([200.0, 120.0])
    assert (where > 0).all() and (where < torch.tensor([200.0, 120.0])).all()
    rows, columns = drawn.nonzero().unbind(1)
    for axis, cells in enumerate((columns, rows)):
        assert cells.min().item() + 0.5 == pytest.approx(where[:, axis].min().item(), abs=2.5)
        assert cells.max().item() + 0.5 == pytest.approx(where[:, axis].max().item(), abs=2.5)


def test_the_example_of_the_how_to_runs(root: Path) -> None:
    text = (root / "docs" / "howto" / "pytorch3d.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "pytorch3d.md", "exec"), names)
    assert 0.05 < names["silhouette"].float().mean() < 0.9
    assert_close(names["back"].cam2world, names["camera"].cam2world, atol=1e-5, rtol=0)
    assert torch.equal(names["same"].faces, names["mesh"].faces) and names["mesh"].colours is not None
