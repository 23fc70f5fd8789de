"""The camera: axes, labels, orbits, mirrors, projection, pixel pitch."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.camera import EG3D_FOCAL, Camera, focal_from_field_of_view, intrinsics_from_focal
from priorzoo.rendering.rays import rays_from_camera
from torch.testing import assert_close

YAW = torch.tensor([0.0, 0.7, -0.4, 0.2], dtype=torch.float64)
PITCH = torch.tensor([0.0, 0.3, -0.5, 0.1], dtype=torch.float64)


def orbit() -> Camera:
    return Camera.looking_at_origin(YAW, PITCH)


def test_rotations_are_proper_and_level() -> None:
    rotation = orbit().cam2world[:, :3, :3]
    assert_close(rotation.transpose(1, 2) @ rotation, torch.eye(3, dtype=torch.float64).expand(4, 3, 3))
    assert_close(torch.linalg.det(rotation), torch.ones(4, dtype=torch.float64))
    assert rotation[:, 1, 0].abs().max() < 1e-15  # the right axis is horizontal
    assert (rotation[:, 1, 1] < 0).all()  # the down axis points down


def test_frontal_camera_is_opencv_on_plus_z() -> None:
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    expected = torch.tensor([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]])
    assert_close(camera.cam2world[0], expected)


def test_positive_yaw_moves_to_x_and_positive_pitch_up() -> None:
    quarter = torch.tensor([math.pi / 2, 0.0]), torch.tensor([0.0, 0.5])
    position = Camera.looking_at_origin(*quarter, radius=2.0).position
    assert_close(position, torch.tensor([[2.0, 0, 0], [0, 2 * math.sin(0.5), 2 * math.cos(0.5)]]), atol=1e-6, rtol=0)


def test_forward_axis_meets_the_target_in_the_image_centre() -> None:
    target = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)
    camera = Camera.looking_at(torch.tensor([[1.0, 0.5, 2.0]], dtype=torch.float64), target)
    where, depth = camera.project(target[:, None])
    assert_close(where[0, 0], torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert depth.item() == pytest.approx(math.sqrt(0.9**2 + 0.7**2 + 1.7**2))


def test_projection_undoes_rays() -> None:
    camera = orbit()
    origins, directions = rays_from_camera(camera, 3, 5)
    where, depth = camera.project(origins + 1.7 * directions)
    rows, columns = torch.meshgrid(torch.arange(3.0), torch.arange(5.0), indexing="ij")
    pixels = torch.stack([(columns.flatten() + 0.5) / 5, (rows.flatten() + 0.5) / 3], dim=-1).double()
    assert_close(where, pixels.expand(4, 15, 2))
    assert (depth > 0).all()


def test_point_above_is_higher_in_the_image() -> None:
    where, _ = orbit().project(torch.tensor([[[0.0, 0.1, 0.0]]], dtype=torch.float64).expand(4, 1, 3))
    assert (where[:, 0, 1] < 0.5).all()


def test_label_round_trip_and_order() -> None:
    camera = orbit()
    label = camera.label()
    assert label.shape == (4, 25)
    assert_close(label[:, 3:12:4], camera.position)
    assert label[0, 16].item() == label[0, 20].item() == EG3D_FOCAL
    again = Camera.from_label(label)
    assert torch.equal(again.cam2world, camera.cam2world) and torch.equal(again.intrinsics, camera.intrinsics)


def test_label_of_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[B,25\], got \[1, 16\]"):
        Camera.from_label(torch.zeros(1, 16))


def test_view_angle_is_that_to_the_front() -> None:
    expected = (PITCH.cos() * YAW.cos()).acos()
    assert_close(orbit().view_angle, expected)
    behind = Camera.looking_at_origin(torch.tensor([math.pi]), torch.zeros(1))
    assert behind.view_angle.item() == pytest.approx(math.pi, abs=1e-3)


def test_mirrored_camera_sees_the_mirrored_world_mirrored() -> None:
    camera = orbit()
    camera.intrinsics[:, 0, 1], camera.intrinsics[:, 0, 2] = 0.02, 0.45
    points = torch.randn(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    where, depth = camera.project(points)
    mirrored, mirrored_depth = camera.mirrored().project(points * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    assert_close(mirrored[..., 0], 1.0 - where[..., 0])
    assert_close(mirrored[..., 1], where[..., 1])
    assert_close(mirrored_depth, depth)
    assert_close(camera.mirrored().mirrored().cam2world, camera.cam2world)
    assert_close(camera.mirrored().mirrored().intrinsics, camera.intrinsics)


def test_zoom_scales_about_the_centre() -> None:
    points = torch.randn(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.2
    near, far = orbit().zoomed(2.0).project(points)[0], orbit().project(points)[0]
    assert_close(near - 0.5, 2.0 * (far - 0.5))


def test_pixel_pitch_is_that_of_eg3d_at_128() -> None:
    assert orbit().pixel_pitch(128)[0].item() == pytest.approx(0.00495, abs=1e-5)
    assert orbit().pixel_pitch(64, 1.0)[0].item() == pytest.approx(1 / (64 * EG3D_FOCAL))


def test_focal_of_a_field_of_view() -> None:
    assert focal_from_field_of_view(90.0) == pytest.approx(0.5)
    # The published 18.837 degrees are the image's diagonal.
    diagonal = 2 * math.degrees(math.atan(math.sqrt(0.5) / EG3D_FOCAL))
    assert diagonal == pytest.approx(18.837, abs=0.01)


def test_indexing_and_conversion() -> None:
    camera = orbit()
    assert len(camera[1:3]) == 2 and torch.equal(camera[[3]].position, camera.position[3:])
    assert camera.to(torch.float32).cam2world.dtype == torch.float32
    assert intrinsics_from_focal(2.0, 3, like=YAW).dtype == torch.float64
