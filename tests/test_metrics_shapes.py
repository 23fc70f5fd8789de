"""Shape measures against closed forms, and the one that matters: blurring true depth takes it away from the truth."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from analytic import sphere_scene
from priorzoo.core.camera import Camera
from priorzoo.core.scene import Scene
from priorzoo.metrics.geometry import (
    angle_between,
    depth_error,
    eroded,
    intersection_over_union,
    masked_mean,
    normal_error,
    ray_deviation,
    reprojection_error,
    roughness,
    standardised,
    top_mean,
    turned,
)
from priorzoo.metrics.shapes import (
    NEIGHBOUR_ANGLE,
    Truth,
    against_estimate,
    against_truth,
    camera_frame,
    distribution,
    scene_of_truth,
)
from priorzoo.segmenters.base import Estimator
from priorzoo.shapes.head_parameters import sample_heads
from priorzoo.shapes.head_render import HeadImages, render_heads
from torch import Tensor
from torch.nn import functional

NEEDS = frozenset({"image", "depth", "opacity", "rays", "weights", "distances"})


@cache
def true_heads() -> Truth:
    heads = sample_heads(3, seed=1, accessories=False)
    camera = Camera.looking_at_origin(torch.tensor([0.0, 0.25, -0.2]), torch.tensor([0.0, 0.1, -0.1]))
    views = [camera, turned(camera, NEIGHBOUR_ANGLE)]
    first, second = (_truth(render_heads(heads, view, 64), view) for view in views)
    first.other = second
    return first


def _truth(made: HeadImages, camera: Camera) -> Truth:
    return Truth(made.rgb * 2 - 1, camera, made.depth, made.normals, made.labels.long())


def blurred(truth: Truth, width: float) -> Truth:
    """The truth with its depth blurred by a Gaussian of ``width`` pixels inside the foreground; everything else as it was."""
    other = None if truth.other is None else blurred(truth.other, width)
    mask = truth.foreground.float()
    radius = math.ceil(3 * width)
    at = torch.arange(-radius, radius + 1).float()
    kernel = (-(at**2) / (2 * width**2)).exp()
    depth = torch.where(truth.foreground, truth.depth, torch.zeros_like(truth.depth))
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        padding = (radius, 0) if shape[2] == -1 else (0, radius)
        depth = functional.conv2d(depth, kernel.view(shape), padding=padding)
        mask = functional.conv2d(mask, kernel.view(shape), padding=padding)
    depth = torch.where(truth.foreground, depth / mask.clamp_min(1e-6), torch.full_like(depth, math.inf))
    return Truth(truth.image, truth.camera, depth, truth.normals, truth.labels, other)


def measured(truth: Truth) -> dict[str, Tensor]:
    scene = scene_of_truth(truth)
    assert truth.other is not None
    return {**against_truth(scene, true_heads()), **distribution(scene, scene_of_truth(truth.other))}


def test_blurring_true_depth_takes_it_away_from_the_truth() -> None:
    """(a) every error grows with the blur; (c) every statistic moves away from its true value, SR and roughness downwards."""
    true, slight, strong = (measured(t) for t in (true_heads(), blurred(true_heads(), 1.0), blurred(true_heads(), 2.5)))
    for column in ("truth_depth", "truth_normal_skin", "truth_normal_eyes", "truth_normal_foreground"):
        values = [float(m[column].mean()) for m in (true, slight, strong)]
        assert values[0] < values[1] < values[2], column
    for column in ("sr_skin", "sr_skin_top", "roughness_skin", "reprojection"):
        away = [abs(float((m[column] - true[column]).mean())) for m in (slight, strong)]
        assert 0 < away[0] < away[1], column
    assert float(strong["sr_skin"].mean()) < float(true["sr_skin"].mean())


def test_the_truth_agrees_with_itself() -> None:
    true = measured(true_heads())
    assert float(true["truth_depth"].max()) < 1e-5
    assert true["truth_iou"].tolist() == [1.0, 1.0, 1.0]
    # Normals of a depth map of 64 pixels differ from the surface's own by a few degrees.
    assert float(true["truth_normal_skin"].max()) < 10
    assert true["ray_deviation"].tolist() == [0.0, 0.0, 0.0]
    assert float(true["reprojection"].max()) < 0.1  # pixels


def test_a_noisy_depth_is_rougher_than_the_truth() -> None:
    truth = true_heads()
    noise = 0.003 * torch.randn(truth.depth.shape, generator=torch.Generator().manual_seed(0))
    noisy = measured(Truth(truth.image, truth.camera, truth.depth + noise, truth.normals, truth.labels, truth.other))
    true = measured(truth)
    for column in ("sr_skin", "roughness_skin", "reprojection", "truth_normal_skin", "sr_eyes", "roughness_eyes"):
        assert float(noisy[column].mean()) > float(true[column].mean()), column


def test_a_hollow_face_has_a_large_normal_error() -> None:
    truth = true_heads()
    middle = truth.depth[truth.foreground].mean()
    hollow = Truth(truth.image, truth.camera, 2 * middle - truth.depth.clamp_max(9.0), truth.normals, truth.labels)
    scene = scene_of_truth(hollow)
    scene["opacity"] = truth.foreground.float()
    assert float(against_truth(scene, truth)["truth_normal_skin"].mean()) > 35


@torch.no_grad()
def test_the_measures_of_a_ball() -> None:
    """Closed forms: true normals, thickness 1/q of an exponential, a second view that agrees."""
    scene, ball = sphere_scene(NEEDS, count=2, size=64)
    other, _ = sphere_scene(NEEDS, count=2, size=64, yaw=NEIGHBOUR_ANGLE, backbone=ball)
    out = distribution(scene, other)
    solid = eroded(scene.opacity > 0.8, 3)
    assert float(out["ray_deviation"].max()) < 1.3 / ball.density / (2.7 / (4.2647 * 64))
    assert float(out["reprojection"].max()) < 0.6
    true_normals = scene.normals  # the ball's own
    own = Scene(scene.camera, **{k: scene[k] for k in ("depth", "opacity", "rays")}).normals
    assert float(normal_error(own, true_normals, solid).max()) < 8


class _Exact(Estimator):
    """Estimates what it was told."""

    def __init__(self, depth: Tensor, normals: Tensor) -> None:
        super().__init__()
        self.answer = depth, normals

    def estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.answer


def test_against_an_estimate_is_zero_where_the_estimate_is_the_shape_itself() -> None:
    scene = scene_of_truth(true_heads())
    own = camera_frame(scene.normals, true_heads().camera)
    out = against_estimate(scene, _Exact(3 * scene.depth - 1, own))
    assert max(float(value.max()) for value in out.values()) < 1e-2
    tilted = functional.normalize(own + torch.tensor([0.3, 0.0, 0.0]).view(1, 3, 1, 1), dim=1)
    assert float(against_estimate(scene, _Exact(scene.depth, tilted))["estimated_normal_skin"].min()) > 5


def test_camera_frame_normals_face_the_camera() -> None:
    truth = true_heads()
    frontal = camera_frame(truth.normals, truth.camera)[:, 2:][truth.foreground]
    assert float((frontal < 0).float().mean()) > 0.99


def test_depth_error_ignores_shift_and_scale_and_what_is_outside() -> None:
    a = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(a).bool()
    mask[:, :, 2:6, 2:6] = True
    b = torch.where(mask, 4 * a + 7, torch.full_like(a, math.inf))
    assert float(depth_error(a, b, mask).max()) < 1e-3
    assert depth_error(a, -a, mask).tolist() == pytest.approx([2.0, 2.0], abs=1e-5)  # sqrt(2 - 2 r), r = -1
    assert bool(torch.isfinite(standardised(b, mask)).all())


def test_angles_are_exact_when_tiny() -> None:
    angle = torch.tensor([1e-4, 0.5, 3.0])
    a = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(3, 3, 1, 1)
    b = torch.stack([angle.cos(), angle.sin(), torch.zeros(3)], 1).view(3, 3, 1, 1)
    assert torch.allclose(angle_between(a, b).flatten(), angle.rad2deg(), rtol=1e-4)


def test_empty_masks_give_nan_not_zero() -> None:
    values, empty = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.bool)
    normals = torch.ones(1, 3, 4, 4)
    numbers = [masked_mean(values, empty), top_mean(values, empty, 0.7), roughness(normals, empty),
               intersection_over_union(empty, empty), normal_error(normals, normals, empty)]  # fmt: skip
    assert all(math.isnan(float(number)) for number in numbers)


def test_roughness_of_alternating_normals() -> None:
    tilt = math.radians(10)
    sign = 1 - 2 * ((torch.arange(6)[:, None] + torch.arange(6)) % 2)
    normals = torch.stack([(sign * math.sin(tilt)), torch.zeros(6, 6), torch.full((6, 6), math.cos(tilt))])[None].float()
    assert roughness(normals, torch.ones(1, 1, 6, 6, dtype=torch.bool)).item() == pytest.approx(20, abs=1e-3)


def test_ray_deviation_of_two_equal_samples() -> None:
    weights, distances = torch.tensor([[[0.25, 0.25, 0.0]]]), torch.tensor([[[2.0, 3.0, 9.0]]])
    assert ray_deviation(weights, distances, 1).item() == pytest.approx(0.5)


def test_reprojection_of_a_shifted_second_view() -> None:
    """A plane seen twice agrees; moved towards the second camera by d it disagrees by about d."""
    first = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    second = turned(first, 0.15)
    points = plane_points(first)
    depth, mask = plane_depth(second), torch.ones(1, 1, 32, 32, dtype=torch.bool)
    assert reprojection_error(points, mask, second, depth, mask).item() < 1e-3
    assert reprojection_error(points, mask, second, depth - 0.05, mask).item() == pytest.approx(0.05, abs=1e-3)


def plane_depth(camera: Camera) -> Tensor:
    """Distances along the unit rays to the plane z = 0."""
    from priorzoo.rendering.rays import rays_from_camera

    origins, directions = rays_from_camera(camera, 32, 32)
    return (-origins[..., 2] / directions[..., 2]).view(1, 1, 32, 32)


def plane_points(camera: Camera) -> Tensor:
    """World points of the plane z = 0 behind each pixel."""
    from priorzoo.rendering.normals import points_from_depth
    from priorzoo.rendering.rays import rays_from_camera

    return points_from_depth(plane_depth(camera), *rays_from_camera(camera, 32, 32))
