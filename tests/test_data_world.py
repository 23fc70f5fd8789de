"""A scene's coordinates into the labels' world: centre, scale, up and front, and cameras moved to a sphere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from camera_file_writers import FRONTAL, poses
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError
from priorzoo.data.world import closest_to_axes, on_sphere, upright, world_of


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def moved(cam2world: np.ndarray, turn: np.ndarray, offset: np.ndarray, scale: float) -> np.ndarray:
    out = cam2world.copy()
    out[:, :3, :3] = turn @ cam2world[:, :3, :3]
    out[:, :3, 3] = scale * cam2world[:, :3, 3] @ turn.T + offset
    return out


def test_axes_that_cross_by_pencil() -> None:
    # One axis runs along x at height z = 0, one along y at z = 1: half-way between them lies (0, 0, 0.5).
    a, b = np.eye(4), np.eye(4)
    a[:3, 2], a[:3, 3] = [1, 0, 0], [-3, 0, 0]
    b[:3, 2], b[:3, 3] = [0, 1, 0], [0, -5, 1]
    assert np.allclose(closest_to_axes(np.stack([a, b])), [0, 0, 0.5])


def test_the_closest_point_is_a_minimum() -> None:
    given = poses(9)
    given[:, :3, 3] += np.random.default_rng(4).normal(0, 0.2, (9, 3))
    point = closest_to_axes(given)

    def squared(x: np.ndarray) -> float:
        return float((np.cross(x - given[:, :3, 3], given[:, :3, 2]) ** 2).sum())

    assert all(squared(point + d) > squared(point) for d in 0.01 * np.vstack([np.eye(3), -np.eye(3)]))


def test_parallel_axes_meet_nowhere() -> None:
    pair = np.stack([FRONTAL, FRONTAL])
    pair[1, 0, 3] = 1.0
    with pytest.raises(DataError, match="2 cameras are parallel and meet nowhere: give --centre"):
        closest_to_axes(pair)


def test_sphere_undoes_any_offset_and_scale() -> None:
    given = poses(8)
    offset = np.array([5.0, -3.0, 11.0])
    world = world_of(moved(given, np.eye(3), offset, 7.5), normalise="sphere")
    placed = world.place(moved(given, np.eye(3), offset, 7.5))
    assert np.allclose(world.centre, offset) and world.scale == pytest.approx(2.7 / (4 * 7.5))
    assert np.allclose(placed[:, :3, :3], given[:, :3, :3]) and np.allclose(placed[:, :3, 3], given[:, :3, 3] * 2.7 / 4)


def test_given_centre_and_scale_replace_the_computed_ones() -> None:
    given = poses(5)
    world = world_of(given, normalise="sphere", centre=(1.0, 2.0, 3.0), scale=0.5)
    assert world.centre.tolist() == [1, 2, 3] and world.scale == 0.5
    assert np.allclose(world.place(given)[:, :3, 3], 0.5 * (given[:, :3, 3] - [1, 2, 3]))
    half = world_of(given, normalise="sphere", centre=(0.0, 0.0, 0.0))
    assert half.scale == pytest.approx(2.7 / 4)


def test_nothing_asked_nothing_changed() -> None:
    given = poses(3)
    assert world_of(given).place(given) is given


def test_z_up_turns_blender_s_front() -> None:
    # Blender's front camera stands at -y, its up axis is z; it becomes EG3D's frontal camera.
    blender = np.array([[1.0, 0, 0, 0], [0, 0, 1, -2.7], [0, -1, 0, 0], [0, 0, 0, 1]])[None]
    placed = world_of(blender, orient="z_up").place(blender)
    assert np.allclose(placed[0], FRONTAL)


@pytest.mark.parametrize("seed", range(4))
def test_upright_undoes_any_turn(seed: int) -> None:
    yaw = torch.tensor([-0.5, 0.0, 0.5], dtype=torch.float64)
    given = Camera.looking_at_origin(yaw, torch.zeros_like(yaw)).cam2world.numpy()
    scene = moved(given, rotation(seed), np.array([1.0, 2.0, 3.0]), 4.0)
    assert np.allclose(upright(scene, np.array([1.0, 2.0, 3.0])), rotation(seed).T)
    world = world_of(scene, orient="cameras", normalise="sphere")
    assert np.allclose(world.place(scene), given, atol=1e-9)


def test_cameras_that_show_no_up() -> None:
    two = np.stack([FRONTAL, FRONTAL @ np.diag([-1.0, -1.0, 1.0, 1.0])])
    with pytest.raises(DataError, match="up axes cancel"):
        upright(two, np.zeros(3))


def test_moved_to_the_sphere() -> None:
    given = poses(5)
    given[:, :3, 3] += 0.3
    by_radius, by_aim = on_sphere(given, "radius", 2.7), on_sphere(given, "aim", 1.7)
    assert np.array_equal(by_radius[:, :3, :3], given[:, :3, :3]) and np.array_equal(by_aim[:, :3, :3], given[:, :3, :3])
    assert np.allclose(np.linalg.norm(by_radius[:, :3, 3], axis=1), 2.7)
    assert np.allclose(np.cross(by_radius[:, :3, 3], given[:, :3, 3]), 0)
    assert np.allclose(by_aim[:, :3, 3], -1.7 * given[:, :3, 2])
    given[2, :3, 3] = 0
    with pytest.raises(DataError, match="a camera stands in the origin; use aim"):
        on_sphere(given, "radius", 2.7)
    with pytest.raises(DataError, match="every camera stands in the centre"):
        world_of(np.stack([np.eye(4)] * 2), normalise="sphere", centre=(0.0, 0.0, 0.0))
