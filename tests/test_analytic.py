"""The analytic ball's buffers agree with each other, with its field, and with its closed forms."""

from __future__ import annotations

import torch
from analytic import NAMES, PROVIDES, AnalyticColours, sphere_scene
from priorzoo.core.streams import fixed_streams
from priorzoo.rendering.compositing import march_intervals
from torch.testing import assert_close


def test_sums_over_intervals_are_the_closed_forms() -> None:
    scene, _ = sphere_scene(PROVIDES, double=True)
    opacity = scene.weights.sum(dim=-1)
    assert_close(opacity, scene.opacity.flatten(1))
    hit = opacity > 1e-3
    depth = (scene.weights * scene.distances).sum(dim=-1) / opacity
    assert_close(depth[hit], scene.depth.flatten(1)[hit])
    assert 0.2 < hit.double().mean() < 0.8
    assert bool((scene.edges.diff(dim=-1) > 0).all())


def test_weights_are_those_of_alpha() -> None:
    scene, _ = sphere_scene(PROVIDES, double=True)
    before = torch.cumprod(1.0 - scene.alpha, dim=-1)
    before = torch.cat([torch.ones_like(before[..., :1]), before[..., :-1]], dim=-1)
    assert_close(before * scene.alpha, scene.weights)


def test_field_is_the_ball_that_was_rendered() -> None:
    scene, _ = sphere_scene(PROVIDES, double=True, size=8)
    distances = torch.linspace(2.3, 3.1, 4000, dtype=torch.float64).expand(2, 64, -1)
    points = scene.rays.origins[:, :, None] + scene.rays.directions[:, :, None] * distances[..., None]
    density = scene.field(points.flatten(1, 2)).value.view(distances.shape)
    march = march_intervals(density, distances, activated=True)
    # The limb excepted: there the field's edge, five thousandths of a unit wide, is as thick as the chord is long.
    thick = scene.opacity.flatten(1) > 0.999
    assert_close(march.opacity[thick], scene.opacity.flatten(1)[thick], atol=2e-3, rtol=0)
    assert thick.sum() > 30


def test_front_point_and_normal() -> None:
    scene, ball = sphere_scene({"depth"}, size=33, double=True)
    radius = ball.generator.radii(ball.prepare(ball.draw(2, fixed_streams(0, 2)), None)["w"])
    assert_close(scene.depth[:, 0, 16, 16], 2.7 - radius + 1 / 100.0, atol=1e-6, rtol=0)
    assert_close(scene.normals[:, :, 16, 16], torch.tensor([[0.0, 0.0, 1.0]] * 2, dtype=torch.float64))


def test_gradients_are_finite_and_reach_the_radius() -> None:
    scene, ball = sphere_scene(PROVIDES)
    (scene.depth.mean() + scene.image.mean() + scene.weights.square().mean() + scene.samples.raw.mean()).backward()
    gradient = ball.generator.radius.grad
    assert gradient is not None and bool(gradient.isfinite()) and float(gradient) != 0


def test_colours_give_back_the_labels() -> None:
    scene, _ = sphere_scene({"image"})
    seen, true = AnalyticColours().segment(scene.image).labels(), scene.segmentation.labels()
    assert set(true.unique().tolist()) == set(range(len(NAMES)))
    assert float((seen == true).double().mean()) > 0.97
