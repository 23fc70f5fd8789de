"""Rays, sampling, compositing, depth and normals against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import FieldSample
from priorzoo.rendering.compositing import (
    composite_intervals,
    density_from_raw,
    expected_depth,
    march_intervals,
    march_intervals_reference,
    published_depth,
    sample_weights,
)
from priorzoo.rendering.normals import normals_from_depth, normals_from_field, points_from_depth
from priorzoo.rendering.rays import automatic_bounds, ray_box_bounds, rays_from_camera
from priorzoo.rendering.sampling import importance_distances, merged_order, smoothed_weights, stratified_distances
from torch import Tensor


def some_camera(dtype: torch.dtype = torch.float64) -> Camera:
    """Two cameras, one with skew, unequal focal lengths and an off-centre principal point."""
    camera = Camera.looking_at_origin(torch.tensor([0.3, -0.4], dtype=dtype), torch.tensor([0.1, 0.2], dtype=dtype))
    camera.intrinsics[1] = torch.tensor([[4.0, 0.05, 0.45], [0.0, 5.0, 0.55], [0.0, 0.0, 1.0]], dtype=dtype)
    return camera


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Rays


def test_rays_project_back_to_their_pixels() -> None:
    camera, (height, width) = some_camera(), (3, 5)
    origins, directions = rays_from_camera(camera, height, width)
    assert directions.dtype == torch.float64
    assert torch.allclose(directions.norm(dim=-1), torch.ones(2, 15, dtype=torch.float64))
    image, depth = camera.project(origins + 2.5 * directions)
    rows, cols = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    expected = torch.stack([cols / width, rows / height], dim=-1).reshape(15, 2).double()
    assert torch.allclose(image, expected.expand(2, -1, -1), atol=1e-12)
    assert (depth > 0).all()


def test_corner_rays_reach_the_image_corners() -> None:
    camera = some_camera()
    origins, directions = rays_from_camera(camera, 3, 3, pixels="corners")
    image, _ = camera.project(origins + directions)
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert torch.allclose(image[:, [0, 2, 6, 8]], corners.expand(2, -1, -1), atol=1e-12)
    with pytest.raises(PriorzooError, match="centres, corners"):
        rays_from_camera(camera, 3, 3, pixels="centers")


def test_box_bounds() -> None:
    origins = torch.tensor([[[0.0, 0.0, 2.0], [3.0, 0.0, 2.0], [-2.0, 0.1, 0.2]]], dtype=torch.float64)
    directions = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    near, far, hit = ray_box_bounds(origins, directions, 1.0)
    assert hit.tolist() == [[True, False, True]]
    assert near[0, [0, 2]].tolist() == [1.5, 1.5] and far[0, [0, 2]].tolist() == [2.5, 2.5]


def test_automatic_bounds_and_the_published_slip() -> None:
    origins = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 3.0], [5.0, 5.0, 2.0]]])
    directions = torch.tensor([0.0, 0.0, -1.0]).expand(1, 3, 3)
    near, far = automatic_bounds(origins, directions, 1.0)
    assert near.flatten().tolist() == [1.5, 2.5, 1.5]
    assert far.flatten().tolist() == [2.5, 3.5, 2.5]  # the ray that misses: the largest near
    assert automatic_bounds(origins, directions, 1.0, as_published=False)[1].flatten().tolist() == [2.5, 3.5, 3.5]
    near, far = automatic_bounds(origins[:, 2:], directions[:, 2:], 1.0)
    assert (near.item(), far.item()) == (-1.0, -2.0)


# Sampling


def test_stratified_distances_move_forward_only() -> None:
    edges = torch.linspace(2.0, 3.0, 5)
    assert torch.allclose(stratified_distances(2.0, 3.0, 5, torch.zeros(1, 1, 5)).flatten(), edges)
    moved = stratified_distances(2.0, 3.0, 5, torch.full((1, 1, 5), 0.5)).flatten()
    assert torch.allclose(moved, edges + 0.125)
    jitter = torch.rand(4, 100, 5, generator=generator())
    drawn = stratified_distances(2.0, 3.0, 5, jitter)
    assert (drawn >= edges).all() and (drawn < edges + 0.25 + 1e-6).all()
    per_ray = stratified_distances(torch.full((4, 100, 1), 2.0), torch.full((4, 100, 1), 3.0), 5, jitter)
    assert torch.allclose(per_ray, drawn)


def test_disparity_sampling_is_even_in_one_over_t() -> None:
    inverse = 1.0 / stratified_distances(1.0, 4.0, 4, torch.zeros(1, 1, 4, dtype=torch.float64), disparity=True).flatten()
    assert torch.allclose(inverse, torch.linspace(1.0, 0.25, 4, dtype=torch.float64))


def test_smoothing_equals_the_pooling_operators() -> None:
    weights = torch.rand(2, 3, 9, generator=generator())
    pooled = torch.nn.functional.max_pool1d(weights.flatten(0, 1)[:, None], 2, 1, padding=1)
    pooled = torch.nn.functional.avg_pool1d(pooled, 2, 1)[:, 0].view_as(weights) + 0.01
    assert torch.allclose(smoothed_weights(weights), pooled)


def test_corrected_importance_samples_follow_their_weights() -> None:
    """The share of draws in each interval is that of the smoothed weights, and within an interval they are uniform."""
    distances = torch.linspace(1.0, 3.0, 6)[None, None]
    weights = torch.tensor([[[0.0, 0.1, 0.8, 0.1, 0.0]]])
    drawn = importance_distances(distances, weights, torch.rand(1, 1, 40000, generator=generator()), corrected=True)
    share = torch.histc(drawn, bins=5, min=1.0, max=3.0) / 40000
    expected = smoothed_weights(weights) / smoothed_weights(weights).sum()
    assert torch.allclose(share, expected.flatten(), atol=0.01)


def test_published_importance_samples_lie_half_an_interval_too_near() -> None:
    distances = torch.linspace(0.0, 9.0, 10)[None, None]
    weights = torch.zeros(1, 1, 9)
    weights[..., 4] = 1000.0  # [4, 5]; smoothing widens it to its neighbours
    u = torch.linspace(0.0, 1.0, 2001)[None, None]
    published, corrected = importance_distances(distances, weights, u), importance_distances(distances, weights, u, corrected=True)
    assert abs(corrected.mean().item() - 4.5) < 0.01
    assert abs(published.mean().item() - 4.0) < 0.01


def test_merged_order_sorts() -> None:
    first, second = torch.rand(2, 5, 4, generator=generator()).sort(-1).values, torch.rand(2, 5, 3, generator=generator(1))
    merged, order = merged_order(first, second)
    union = torch.cat([first, second], -1)
    assert torch.equal(merged, union.sort(-1).values) and torch.equal(union.gather(-1, order), merged)


# Compositing


def test_constant_density_has_the_exponential_law() -> None:
    distances = torch.linspace(0.0, 2.0, 201, dtype=torch.float64).expand(1, 1, -1)
    march = march_intervals(torch.full_like(distances, 3.0), distances, activated=True)
    assert math.isclose(march.opacity.item(), 1 - math.exp(-6.0), rel_tol=1e-12)
    assert math.isclose(march.background_transmittance.item(), math.exp(-6.0), rel_tol=1e-9)
    mean = (1 / 3) - 2.0 * math.exp(-6.0) / (1 - math.exp(-6.0))  # of the exponential law cut at 2
    depth = expected_depth(march.weights, march.distances, far=2.0)
    assert math.isclose(depth.item(), mean, rel_tol=1e-4)


def test_march_equals_the_published_running_product() -> None:
    raw = (torch.randn(2, 7, 12, generator=generator()) * 8).double()
    distances = torch.rand(2, 7, 12, generator=generator(1)).double().sort(-1).values
    march = march_intervals(raw, distances)
    weights, alpha = march_intervals_reference(raw, distances)
    assert torch.allclose(march.weights, weights, atol=1e-8) and torch.allclose(march.alpha, alpha, atol=1e-12)
    assert torch.allclose(march.opacity + march.background_transmittance, torch.ones(2, 7, dtype=torch.float64))
    assert march.edges.shape[-1] == march.weights.shape[-1] + 1


def test_sample_weights_average_colours_without_averaging_them() -> None:
    colours = torch.rand(2, 3, 5, 8, generator=generator()).double()
    raw = torch.randn(2, 5, 8, generator=generator(1)).double() * 3
    distances = torch.rand(2, 5, 8, generator=generator(2)).double().sort(-1).values
    features, march = composite_intervals(colours, raw, distances)
    middles = (colours[..., 1:] + colours[..., :-1]) / 2
    assert torch.allclose(features, (middles * march.weights[:, None]).sum(-1))
    white, _ = composite_intervals(colours, raw, distances, white_back=True)
    assert torch.allclose(white - features, (1 - march.opacity)[:, None].expand_as(features))


def test_background_stands_behind_an_interval_that_ends_at_far() -> None:
    colours = torch.rand(1, 2, 3, 6, generator=generator()).double()
    raw = torch.randn(1, 3, 6, generator=generator(1)).double()
    distances = torch.linspace(1.0, 2.0, 6, dtype=torch.float64).expand(1, 3, 6)
    background = torch.rand(1, 2, 3, generator=generator(2)).double()
    features, march = composite_intervals(colours, raw, distances, last_edge=3.0, background=background)
    assert march.weights.shape[-1] == 6 and march.edges[..., -1].unique().tolist() == [3.0]
    middles = torch.cat([(colours[..., 1:] + colours[..., :-1]) / 2, colours[..., -1:]], dim=-1)
    expected = (middles * march.weights[:, None]).sum(-1) + march.background_transmittance[:, None] * background
    assert torch.allclose(features, expected)
    assert torch.allclose(sample_weights(march).sum(-1), march.opacity)
    before, _ = composite_intervals(colours, raw, distances, background=background)
    assert (before - features).abs().max() > 1e-3  # the last interval takes its share from the background
    nothing, _ = composite_intervals(colours, raw, distances, last_edge=1.5)  # ends before the last sample: empty
    plain, _ = composite_intervals(colours, raw, distances)
    assert torch.allclose(nothing, plain)


def test_compositing_gradients() -> None:
    raw = torch.randn(1, 2, 5, generator=generator()).double().requires_grad_()
    colours = torch.rand(1, 3, 2, 5, generator=generator(1)).double().requires_grad_()
    distances = torch.linspace(0.0, 2.0, 5, dtype=torch.float64).expand(1, 2, 5)

    def compose(raw: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
        features, march = composite_intervals(colours, raw, distances, white_back=True)
        return features, expected_depth(march.weights, march.distances, far=2.0)

    assert torch.autograd.gradcheck(compose, (raw, colours))
    assert torch.autograd.gradgradcheck(compose, (raw, colours))


@pytest.mark.parametrize("level", [-1e4, -200.0, -20.0, 0.0, 200.0, 1e4])
def test_depth_gradients_are_finite_everywhere(level: float) -> None:
    raw = torch.full((1, 1, 6), level, requires_grad=True)
    distances = torch.linspace(2.0, 3.0, 6).expand(1, 1, 6)
    march = march_intervals(raw, distances)
    depth = expected_depth(march.weights, march.distances, far=3.3)
    (depth.sum() + march.opacity.sum()).backward()
    assert raw.grad is not None and torch.isfinite(raw.grad).all()
    assert torch.isfinite(depth).all()
    if level <= -20.0:
        assert depth.item() == pytest.approx(3.3)


def test_an_empty_ray_gets_far_without_gradient_beside_a_full_one() -> None:
    raw = torch.tensor([[[-100.0] * 4, [5.0] * 4]], requires_grad=True)
    march = march_intervals(raw, torch.linspace(2.0, 3.0, 4).expand(1, 2, 4))
    depth = expected_depth(march.weights, march.distances, far=3.3)
    depth.sum().backward()
    assert raw.grad is not None
    assert depth[0, 0].item() == pytest.approx(3.3) and raw.grad[0, 0].abs().max() == 0
    assert 2.0 < depth[0, 1].item() < 2.5 and raw.grad[0, 1].abs().max() > 0


def test_published_depth_of_an_empty_ray_is_the_batch_maximum() -> None:
    weights = torch.tensor([[[0.0, 0.0], [0.5, 0.5]]])
    distances = torch.tensor([[[2.0, 2.5], [2.0, 3.0]]])
    assert published_depth(weights, distances, distances).tolist() == [[3.0, 2.5]]


def test_density_is_a_shifted_softplus() -> None:
    assert density_from_raw(torch.tensor([1.0])).item() == pytest.approx(math.log(2.0))


# Normals of an analytic ball


class Ball:
    """A ball of radius 0.4 about the origin, as a density that grows inwards or as a signed distance."""

    extent = 0.5

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(self, points: Tensor) -> FieldSample:
        distance = points.norm(dim=-1) - 0.4
        raw = distance if self.kind == "sdf" else -50.0 * distance
        return FieldSample(raw, raw)


def ball_depth(origins: Tensor, directions: Tensor) -> Tensor:
    along = (origins * directions).sum(-1)
    return -along - (along.square() - origins.square().sum(-1) + 0.4**2).clamp(min=0).sqrt()


@pytest.mark.parametrize("method", ["autograd", "finite_differences"])
@pytest.mark.parametrize("kind", ["density", "occupancy", "sdf"])
def test_field_normals_of_a_ball(kind: str, method: str) -> None:
    points = torch.randn(2, 50, 3, generator=generator()).double()
    normals = normals_from_field(Ball(kind), points, method)
    assert torch.allclose(normals, torch.nn.functional.normalize(points, dim=-1), atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(normals_from_field(Ball(kind), points, method), normals)


def test_field_normals_are_differentiable_and_refuse_unknown_methods() -> None:
    points = torch.randn(1, 4, 3, generator=generator()).double().requires_grad_()
    normals = normals_from_field(Ball("density"), points)
    (gradient,) = torch.autograd.grad(normals[..., 0].sum(), points)
    # d/dx of x/|p| is (|p|^2 - x^2) / |p|^3
    x, length = points[..., 0], points.norm(dim=-1)
    assert torch.allclose(gradient[..., 0], (length**2 - x**2) / length**3)
    with pytest.raises(PriorzooError, match="finite_differences"):
        normals_from_field(Ball("density"), points, "sobel")


def test_depth_normals_of_a_ball_face_the_camera() -> None:
    camera = Camera.looking_at_origin(torch.tensor([0.5, -0.3]).double(), torch.tensor([0.2, 0.0]).double()).zoomed(1.6)
    size = 64
    origins, directions = rays_from_camera(camera, size, size)
    depth = ball_depth(origins, directions).view(2, 1, size, size)
    points = points_from_depth(depth, origins, directions)
    on_ball = (points.norm(dim=1, keepdim=True) - 0.4).abs() < 1e-6
    normals = normals_from_depth(depth, origins, directions)
    truth = torch.nn.functional.normalize(points, dim=1)
    angle = (normals * truth).sum(1, keepdim=True).clamp(-1, 1).arccos().rad2deg()
    facing = (truth * directions.transpose(1, 2).view(2, 3, size, size)).sum(1, keepdim=True) < -0.5
    inner = on_ball & facing
    assert inner.float().mean() > 0.2 and angle[inner].max() < 2.0
    mirrored = camera.mirrored()
    o, d = rays_from_camera(mirrored, size, size)
    other = normals_from_depth(ball_depth(o, d).view(2, 1, size, size), o, d)
    assert torch.allclose(other.flip(-1)[:, 1:][inner.expand(-1, 2, -1, -1)], normals[:, 1:][inner.expand(-1, 2, -1, -1)], atol=1e-6)


def test_depth_normals_have_gradients() -> None:
    origins, directions = rays_from_camera(some_camera(), 4, 4)
    depth = (2.3 + 0.05 * torch.rand(2, 1, 4, 4, generator=generator()).double()).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: normals_from_depth(d, origins, directions), (depth,))
