"""Unsup3D's errors of depth maps: by hand, invariances, known angles, masks."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.metrics.side_mad import mask_of_both, mean_angle_deviation, normals_of_depth_map, scale_invariant_depth_error
from priorzoo.rendering.rays import rays_from_camera
from torch import Tensor


def maps(seed: int = 0) -> Tensor:
    return 0.9 + 0.2 * torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def everywhere(like: Tensor) -> Tensor:
    return torch.ones_like(like[:, :1], dtype=torch.bool)


def tilted(angle: float, size: int = 9) -> Tensor:
    """Depth along z of a plane through (0, 0, 1) that is turned about the y axis, seen under 10 degrees: z = 1 + x tan(angle)."""
    slope = math.tan(math.radians(angle))
    focal = size / (2 * math.tan(math.radians(5.0)))
    x = (torch.arange(size, dtype=torch.float64) + 0.5 - size / 2) / focal  # x / z
    return (1 / (1 - slope * x)).expand(1, 1, size, size)


def test_side_by_hand():
    true = torch.ones(1, 1, 1, 4, dtype=torch.float64)
    depth = torch.tensor([1.0, 1.0, math.e, math.e], dtype=torch.float64).view(1, 1, 1, 4)
    assert scale_invariant_depth_error(depth, true, everywhere(true)).item() == pytest.approx(0.5)
    three = torch.tensor([True, False, True, True]).view(1, 1, 1, 4)  # 0, 1, 1: mean 2/3, variance 2/9
    assert scale_invariant_depth_error(depth, true, three).item() == pytest.approx(math.sqrt(2) / 3)


def test_side_is_zero_on_equals_and_blind_to_scale_but_not_to_shift():
    a, b = maps(), maps(1)
    mask = everywhere(a)
    assert scale_invariant_depth_error(a, a, mask).tolist() == [0, 0]
    assert torch.allclose(scale_invariant_depth_error(a, 7 * a, mask), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    error = scale_invariant_depth_error(a, b, mask)
    assert torch.allclose(scale_invariant_depth_error(3 * a, 0.1 * b, mask), error)
    assert torch.allclose(scale_invariant_depth_error(b, a, mask), error)
    assert bool((scale_invariant_depth_error(a, a + 0.5, mask) > 0.01).all())


def test_side_is_the_same_along_z_and_along_the_ray():
    a, b = maps(), maps(1)
    _, directions = rays_from_camera(Camera.looking_at_origin(torch.zeros(2).double(), torch.zeros(2).double(), focal=1.0), 6, 6)
    longer = (1 / -directions[..., 2]).view(2, 1, 6, 6)
    assert float(longer.max()) > 1.1
    assert torch.allclose(
        scale_invariant_depth_error(a * longer, b * longer, everywhere(a)), scale_invariant_depth_error(a, b, everywhere(a))
    )


def test_side_looks_inside_the_mask_alone():
    a, b = maps(), maps(1)
    mask = everywhere(a)
    mask[:, :, 0] = False
    error = scale_invariant_depth_error(a, b, mask)
    a[:, :, 0], b[:, :, 0] = math.inf, -1.0
    assert torch.equal(scale_invariant_depth_error(a, b, mask), error)
    assert bool(scale_invariant_depth_error(a, b, torch.zeros_like(mask)).isnan().all())


def test_side_has_a_gradient_that_a_wild_outside_does_not_spoil():
    a = maps().requires_grad_()
    mask = everywhere(a)
    mask[:, :, 0] = False
    b = maps(1)
    b[:, :, 0] = 0.0
    scale_invariant_depth_error(a, b, mask).sum().backward()
    assert a.grad is not None
    assert bool(torch.isfinite(a.grad).all())
    assert float(a.grad[:, :, 0].abs().max()) == 0


@pytest.mark.parametrize(("value", "shown"), [(0.0, "got 0"), (-1.0, "got -1"), (math.inf, "got inf"), (math.nan, "got nan")])
def test_depths_without_a_logarithm_are_refused(value, shown):
    a, b = maps(), maps(1)
    b[1, 0, 2, 2] = value
    with pytest.raises(PriorzooError, match=f"true depth must be finite and above 0 inside the mask, {shown}"):
        scale_invariant_depth_error(a, b, everywhere(a))


@pytest.mark.parametrize("angle", [0.0, 1e-4, 30.0, 90.0, 180.0])
def test_mad_of_a_known_angle(angle):
    turn = math.radians(angle)
    a = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    b = torch.tensor([math.sin(turn), 0.0, math.cos(turn)], dtype=torch.float64).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    assert mean_angle_deviation(a, b, everywhere(a)).tolist() == pytest.approx([angle, angle])


def test_mad_is_a_mean_over_the_mask():
    a = torch.zeros(1, 3, 1, 4, dtype=torch.float64)
    b = a.clone()
    a[:, 2], b[:, 2, :, :2], b[:, 0, :, 2:] = 1.0, 1.0, 1.0
    assert mean_angle_deviation(a, b, everywhere(a)).item() == pytest.approx(45.0)
    last = torch.tensor([False, True, True, True]).view(1, 1, 1, 4)
    assert mean_angle_deviation(a, b, last).item() == pytest.approx(60.0)
    assert math.isnan(mean_angle_deviation(a, b, torch.zeros_like(last)).item())


@pytest.mark.parametrize("angle", [0.0, 20.0, -45.0])
def test_normals_of_a_tilted_plane(angle):
    normals = normals_of_depth_map(tilted(angle))
    turn = math.radians(angle)
    inner = normals[0, :, 1:-1, 1:-1].flatten(1)
    expected = torch.tensor([-math.sin(turn), 0.0, math.cos(turn)], dtype=torch.float64)
    assert torch.allclose(inner, expected[:, None].expand_as(inner), atol=1e-9)
    assert torch.equal(normals[0, :, 0, 3], torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def test_two_planes_differ_by_their_angle():
    a, b = normals_of_depth_map(tilted(10.0)), normals_of_depth_map(tilted(35.0))
    inside = mask_of_both(everywhere(a), everywhere(a))
    assert inside.sum() == 49  # the border, whose normals are made up, is outside
    assert mean_angle_deviation(a, b, inside).item() == pytest.approx(25.0)
    assert torch.allclose(normals_of_depth_map(5 * tilted(35.0)), b)


def test_normals_of_a_row_that_goes_down():
    depth = tilted(20.0).transpose(2, 3)
    inner = normals_of_depth_map(depth)[0, :, 4, 4]
    turn = math.radians(20.0)
    assert torch.allclose(inner, torch.tensor([0.0, -math.sin(turn), math.cos(turn)], dtype=torch.float64), atol=1e-9)


def test_the_mask_is_both_eroded():
    a = torch.ones(1, 1, 7, 7, dtype=torch.bool)
    b = a.clone()
    b[0, 0, 3, 3] = False
    both = mask_of_both(a, b)
    assert both.sum() == 25 - 9
    assert not both[0, 0, 2:5, 2:5].any()


@pytest.mark.parametrize("angle", [0.0, 180.0])
def test_a_field_of_view_without_a_focal_length_is_refused(angle):
    with pytest.raises(PriorzooError, match="between 0 and 180 degrees"):
        normals_of_depth_map(tilted(0.0), angle)
