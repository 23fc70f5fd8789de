"""The published camera helpers, by numbers; `test_eg3d_golden` compares them with stored matrices."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.backbones.eg3d.cameras import published_focal, published_look_at
from torch import Tensor

HALF = math.pi / 2


def look_at(*angles: tuple[float, float], radius: float = 2.0) -> tuple[Tensor, Tensor]:
    """Positions and rotations of cameras whose axis passes through (0, 0, 0.2)."""
    h, v = torch.tensor(angles, dtype=torch.float64).unbind(1)
    camera = published_look_at(h, v, (0.0, 0.0, 0.2), radius=radius)
    return camera.position, camera.cam2world[:, :3, :3]


def test_the_position_is_about_the_origin_whatever_the_target() -> None:
    position, rotation = look_at((HALF, HALF), (0.0, HALF), (math.pi, HALF), (1.0, 0.7))
    wanted = torch.tensor([[0.0, 0, 2], [-2, 0, 0], [2, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(position[:3], wanted, atol=1e-12, rtol=0)
    assert position[3].norm().item() == pytest.approx(2.0)
    towards = torch.tensor([0.0, 0.0, 0.2], dtype=torch.float64) - position
    torch.testing.assert_close(rotation[:, :, 2], towards / towards.norm(dim=1, keepdim=True))
    frontal = torch.tensor([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=torch.float64)  # columns: right, down, forward
    torch.testing.assert_close(rotation[0], frontal, atol=1e-12, rtol=0)


@pytest.mark.parametrize("v", [HALF, 0.3, 1.0, 2.9])
def test_the_vertical_angle_is_bent(v: float) -> None:
    """phi = arccos(1 - 2 v / pi), so the height is r (1 - 2 v / pi): linear in v, 2 / pi of an offset from the middle."""
    position, _ = look_at((HALF, v))
    assert position[0, 1].item() == pytest.approx(2.0 * (1 - 2 * v / math.pi), abs=1e-12)


def test_a_small_pitch_becomes_0_637_of_it() -> None:
    position, _ = look_at((HALF, HALF + 1e-3))
    assert math.asin(-position[0, 1].item() / 2.0) == pytest.approx(0.637e-3, rel=1e-3)


@pytest.mark.parametrize(("v", "clamped"), [(-5.0, 1e-5), (0.0, 1e-5), (9.0, math.pi - 1e-5)])
def test_the_poles_are_avoided(v: float, clamped: float) -> None:
    position, rotation = look_at((HALF, v))
    assert position[0, 1].item() == pytest.approx(2.0 * (1 - 2 * clamped / math.pi), abs=1e-12)
    assert torch.linalg.det(rotation).item() == pytest.approx(1.0)


@pytest.mark.parametrize(("degrees", "focal"), [(18.837, 4.26339), (18, 4.46517)])
def test_a_field_of_view_is_the_diagonal_s_with_short_constants(degrees: float, focal: float) -> None:
    assert published_focal(degrees) == pytest.approx(focal, abs=5e-6)
    exact = 1 / (math.sqrt(2) * math.tan(math.radians(degrees) / 2))
    assert abs(published_focal(degrees) - exact) > 1e-4
