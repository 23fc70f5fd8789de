"""Cameras in PyTorch3D's terms, by its published formulas; `test_pytorch3d` asks the package itself."""

from __future__ import annotations

import sys

import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.camera_pytorch3d import camera_from_parameters, pytorch3d_parameters
from priorzoo.core.errors import MissingPackageError, PriorzooError
from torch import Tensor
from torch.testing import assert_close

SIZES = (None, (64, 64), (48, 80), (90, 30))


def cameras(skew: float = 0.05) -> Camera:
    """Three cameras, two of which have unequal focal lengths, an off-centre principal point and skew."""
    angles = torch.tensor([[0.3, 0.1], [-0.7, 0.4], [2.5, -0.2]], dtype=torch.float64)
    camera = Camera.looking_at_origin(angles[:, 0], angles[:, 1])
    camera.intrinsics[1:] = torch.tensor([[3.0, skew, 0.45], [0.0, 5.0, 0.6], [0.0, 0.0, 1.0]], dtype=torch.float64)
    return camera


def points(count: int = 20) -> Tensor:
    return torch.rand(3, count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5


@pytest.mark.parametrize("size", SIZES)
def test_projection_by_their_formula_is_ours(size: tuple[int, int] | None) -> None:
    """x_view = x R + T; x = (f_x X + s Y) / Z + p_x; +x is left, and the shorter side reaches from -1 to 1."""
    camera, world = cameras(), points()
    given = pytorch3d_parameters(camera, size)
    view = world @ given.rotation + given.translation[:, None]
    x = (given.focal[:, None, 0] * view[..., 0] + given.skew[:, None] * view[..., 1]) / view[..., 2] + given.principal[:, None, 0]
    y = given.focal[:, None, 1] * view[..., 1] / view[..., 2] + given.principal[:, None, 1]
    height, width = size or (1, 1)
    shorter = min(height, width)
    image = torch.stack([(width / shorter - x) / 2 / (width / shorter), (height / shorter - y) / 2 / (height / shorter)], dim=-1)
    where, depth = camera.project(world)
    assert_close(image, where, atol=1e-12, rtol=0)
    assert_close(view[..., 2], depth, atol=1e-12, rtol=0)


def test_a_frontal_camera_by_hand() -> None:
    """At (0, 0, 2.7) looking to -z: left is -x, up is y, forward is -z."""
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1), focal=1.5)
    given = pytorch3d_parameters(camera, (100, 200))
    assert_close(given.rotation[0], torch.diag(torch.tensor([-1.0, 1.0, -1.0])))
    assert_close(given.translation[0], torch.tensor([0.0, 0.0, 2.7]))
    assert_close(given.focal[0], torch.tensor([6.0, 3.0]))  # 1.5 image widths = 3 half heights x 2, 1.5 image heights = 3 half heights
    assert given.principal.tolist() == [[0.0, 0.0]] and given.skew.tolist() == [0.0]


def test_a_point_to_the_upper_left_has_positive_coordinates() -> None:
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    given = pytorch3d_parameters(camera)
    view = torch.tensor([[-0.1, 0.2, 0.0]]) @ given.rotation[0] + given.translation[0]
    where, _ = camera.project(torch.tensor([[[-0.1, 0.2, 0.0]]]))
    assert (view > 0).all() and (where < 0.5).all()


@pytest.mark.parametrize("size", SIZES)
def test_there_and_back(size: tuple[int, int] | None) -> None:
    camera = cameras()
    back = camera_from_parameters(pytorch3d_parameters(camera, size), size)
    assert_close(back.cam2world, camera.cam2world, atol=1e-14, rtol=0)
    assert_close(back.intrinsics, camera.intrinsics, atol=1e-14, rtol=0)


def test_a_size_for_each_camera() -> None:
    camera = cameras()
    sizes = torch.tensor([[48, 80], [64, 64], [90, 30]])
    single = [pytorch3d_parameters(camera[[i]], tuple(size)) for i, size in enumerate(sizes.tolist())]
    together = type(single[0])(*(torch.cat(parts) for parts in zip(*single, strict=True)))
    assert_close(camera_from_parameters(together, sizes).intrinsics, camera.intrinsics, atol=1e-14, rtol=0)


def test_gradient_reaches_the_pose() -> None:
    matrix, intrinsics = cameras().cam2world.requires_grad_(), cameras().intrinsics.requires_grad_()

    def terms(pose: Tensor, inner: Tensor) -> tuple[Tensor, ...]:
        return tuple(pytorch3d_parameters(Camera(pose, inner), (48, 80)))

    assert torch.autograd.gradcheck(terms, (matrix, intrinsics))


@pytest.mark.parametrize("size", [(0, 4), (3,), (4, -1)])
def test_impossible_sizes_are_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(PriorzooError, match=r"size is \(height, width\) in pixels, got"):
        pytorch3d_parameters(cameras(), size)  # type: ignore[arg-type]


def test_without_the_package_the_error_says_how_to_build_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "pytorch3d"] or ["pytorch3d"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"needs PyTorch3D.*pip install --no-build-isolation --no-deps git\+https"):
        cameras().to_pytorch3d()
