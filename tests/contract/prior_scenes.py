"""For every shipped prior: its options, a scene where it must be positive, and one where it must be zero.

A new prior is added to DECLARATIONS; the suite refuses one that is not there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from analytic import NAMES, AnalyticSphere, one_hot_segmentation, sphere_scene
from priorzoo.core.camera import Camera
from priorzoo.core.scene import FieldSample, Rays, Samples, Scene
from torch import Tensor


@dataclass
class Declared:
    """A scene and the tensors that hold its geometry, to which gradient must flow."""

    scene: Scene
    geometry: list[Tensor]


@dataclass(frozen=True)
class Declaration:
    """Builders take the samples' places in the global batch, and whether the scene is float64.

    ``couples_samples``: with these options a sample's value depends on the others of the batch.
    """

    positive: Callable[[tuple[int, ...], bool], Declared]
    zero: Callable[[tuple[int, ...], bool], Declared]
    options: dict[str, Any] = field(default_factory=dict)
    couples_samples: bool = False


EVERYTHING = frozenset({"depth", "opacity", "background_transmittance", "weights", "samples", "field", "image"})


def balls(indices: tuple[int, ...], double: bool) -> Declared:
    """Balls seen from 10 degrees: round surfaces, eyes and skin in view, empty rays around."""
    scene, ball = sphere_scene(EVERYTHING, indices=indices, double=double, yaw=0.17)
    return Declared(scene, [ball.generator.radius])


def nothing_in_view(indices: tuple[int, ...], double: bool) -> Declared:
    """The same balls behind the camera: every ray is empty."""
    scene, ball = balls_behind(indices, double)
    return Declared(scene, [ball.generator.radius])


def balls_behind(indices: tuple[int, ...], double: bool) -> tuple[Scene, AnalyticSphere]:
    """Render with the camera turned away."""
    from priorzoo.core.streams import Streams

    ball = AnalyticSphere(neural_resolution=16, image_resolution=16)
    ball = ball.double() if double else ball
    streams = Streams(0, 0, indices)
    latents = ball.prepare(ball.draw(len(indices), streams), None)
    position = torch.tensor([[0.0, 0.0, 2.7]]).expand(len(indices), 3)
    camera = Camera.looking_at(position, 2 * position)
    return ball.render(latents, camera, EVERYTHING, streams=streams), ball


def fronto_parallel_skin(indices: tuple[int, ...], double: bool) -> Declared:
    """Constant depth, opaque, skin and an eye everywhere."""
    dtype = torch.float64 if double else torch.float32
    depth = torch.full((len(indices), 1, 16, 16), 2.7, dtype=dtype, requires_grad=True)
    ids = torch.ones(len(indices), 16, 16, dtype=torch.int64)
    ids[:, :, 8:] = NAMES.index("left_eye")
    camera = Camera.looking_at_origin(torch.zeros(len(indices), dtype=dtype), torch.zeros(len(indices), dtype=dtype))
    scene = Scene(camera, depth=depth, opacity=torch.ones_like(depth), segmentation=one_hot_segmentation(ids))
    return Declared(scene, [depth])


class ConstantField:
    """The same density everywhere."""

    kind, extent = "density", 0.5

    def __init__(self, raw: Tensor) -> None:
        self.raw = raw

    def __call__(self, points: Tensor) -> FieldSample:
        raw = self.raw[:, None].expand(points.shape[:2])
        return FieldSample(raw, raw)


def constant_density(indices: tuple[int, ...], double: bool) -> Declared:
    """A field that is 3 everywhere."""
    raw = torch.full((len(indices),), 3.0, dtype=torch.float64 if double else torch.float32, requires_grad=True)
    return Declared(Scene(None, field=ConstantField(raw)), [raw])


def soft_balls(indices: tuple[int, ...], double: bool) -> Declared:
    """Balls whose generator also holds the scale of the raw density, which density TV pulls at."""
    declared = balls(indices, double)
    scale = torch.ones((), dtype=torch.float64 if double else torch.float32, requires_grad=True)
    inner = declared.scene.field

    class Scaled:
        kind, extent = "density", 0.5

        def __call__(self, points: Tensor) -> FieldSample:
            sample = inner(points)
            return FieldSample(sample.raw * scale, sample.value)

    declared.scene["field"] = Scaled()
    return Declared(declared.scene, [scale])


class EmptyField(ConstantField):
    """No density anywhere; the raw output is far below zero."""

    def __call__(self, points: Tensor) -> FieldSample:
        raw = self.raw[:, None].expand(points.shape[:2])
        return FieldSample(raw, raw * 0.0)


def empty_space(indices: tuple[int, ...], double: bool) -> Declared:
    """A field without density."""
    raw = torch.full((len(indices),), -300.0, dtype=torch.float64 if double else torch.float32, requires_grad=True)
    return Declared(Scene(None, field=EmptyField(raw)), [raw])


def half_covered(indices: tuple[int, ...], double: bool) -> Declared:
    """The left half of the image opaque, the right half empty."""
    opacity = torch.zeros(len(indices), 1, 8, 8, dtype=torch.float64 if double else torch.float32)
    opacity[..., :4] = 1.0
    return Declared(Scene(None, opacity=opacity.requires_grad_()), [opacity])


def certain_samples(indices: tuple[int, ...], double: bool) -> Declared:
    """Samples as drawn of which every ray has one that is wholly certain, if any, to the softmax and none to the sigmoid."""
    raw = torch.full((len(indices), 4, 6), -2000.0, dtype=torch.float64 if double else torch.float32)
    raw[..., 2] = -1000.0
    raw.requires_grad_()
    distances = torch.linspace(2.25, 3.3, 6).to(raw).expand(raw.shape)
    return Declared(Scene(None, samples=Samples(distances, raw)), [raw])


class QuadricField:
    """raw = a (stretch x^2 + y^2 + z^2) + b z: an ellipsoid's normals with a = -1, b = 0, a plane's with a = 0, b = -1."""

    kind, extent = "density", 0.5

    def __init__(self, stretch: Tensor, round_share: float) -> None:
        self.stretch, self.round_share = stretch, round_share

    def __call__(self, points: Tensor) -> FieldSample:
        x, y, z = points.unbind(dim=-1)
        raw = -self.round_share * (self.stretch * x * x + y * y + z * z) - (1.0 - self.round_share) * self.stretch * z
        return FieldSample(raw, raw)


def _before(round_share: float, indices: tuple[int, ...], double: bool) -> Declared:
    """Parallel rays on a quadric field, opaque at one distance."""
    dtype = torch.float64 if double else torch.float32
    stretch = torch.tensor(2.0, dtype=dtype, requires_grad=True)
    across = torch.linspace(-0.3, 0.3, 16, dtype=dtype)
    y, x = (t.flatten() for t in torch.meshgrid(across, across, indexing="ij"))
    origins = torch.stack([x, y, torch.full_like(x, 2.7)], dim=-1).expand(len(indices), 256, 3)
    directions = torch.tensor([0.0, 0.0, -1.0], dtype=dtype).expand_as(origins)
    depth = torch.full((len(indices), 1, 16, 16), 2.4, dtype=dtype)
    field = QuadricField(stretch, round_share)
    rays = Rays(origins, directions, 16, 16)
    return Declared(Scene(None, depth=depth, opacity=torch.ones_like(depth), rays=rays, field=field), [stretch])


def ellipsoids(indices: tuple[int, ...], double: bool) -> Declared:
    """Ellipsoids that a parameter stretches."""
    return _before(1.0, indices, double)


def planes(indices: tuple[int, ...], double: bool) -> Declared:
    """Planes, of which a parameter is the slope of the density across."""
    return _before(0.0, indices, double)


def full_and_empty(indices: tuple[int, ...], double: bool) -> Declared:
    """Samples of which every other is opaque."""
    alpha = torch.zeros(len(indices), 4, 6, dtype=torch.float64 if double else torch.float32)
    alpha[..., ::2] = 1.0
    return Declared(Scene(None, alpha=alpha.requires_grad_()), [alpha])


EYES = ["left_eye", "right_eye"]
DECLARATIONS: dict[str, list[Declaration]] = {
    "background_separation": [Declaration(balls, nothing_in_view)],
    "coverage": [Declaration(balls, half_covered, {"foreground": 0.5, "background": 0.5})],
    "density_monotonic": [
        Declaration(soft_balls, constant_density, {"points": 500}),
        Declaration(soft_balls, constant_density, {"points": 500, "form": "fixed", "smoothness": 0.025, "smooth_points": 50}),
        Declaration(soft_balls, constant_density, {"points": 500, "as_published": True}),
    ],
    "density_tv": [
        Declaration(soft_balls, constant_density, {"points": 50}),
        Declaration(soft_balls, constant_density, {"points": 50, "as_published": True}),
    ],
    "depth_variance": [Declaration(balls, nothing_in_view, {"tolerance": 0.0})],
    "distortion": [
        Declaration(balls, nothing_in_view),
        Declaration(balls, nothing_in_view, {"form": "poster"}),
        Declaration(balls, certain_samples, {"form": "as_published"}),
    ],
    "mask": [Declaration(balls, nothing_in_view, {"form": form}) for form in ("bce", "l1", "iou")],
    "normal_smoothness": [
        Declaration(ellipsoids, planes),
        Declaration(ellipsoids, planes, {"method": "finite_differences", "step": 0.01, "distance": 0.1}),
    ],
    "opacity": [Declaration(balls, full_and_empty)],
    "opacity_entropy": [Declaration(balls, nothing_in_view)],
    "ray_entropy": [
        Declaration(balls, nothing_in_view),
        Declaration(balls, certain_samples, {"form": "as_published"}),
    ],
    "sparsity": [
        Declaration(balls, nothing_in_view),
        Declaration(balls, empty_space, {"form": "cauchy", "points": 2000}),
        Declaration(balls, empty_space, {"form": "exponential", "points": 2000}),
    ],
    "sr": [
        Declaration(balls, fronto_parallel_skin),
        Declaration(balls, fronto_parallel_skin, {"min_opacity": 0, "second_order": True, "normalise": "pixel"}),
    ],
    "ssr": [
        Declaration(balls, fronto_parallel_skin, {"region": "skin", "hardest": 0.7}),
        Declaration(balls, fronto_parallel_skin, {"region": EYES, "erosion": 1, "max_view_angle": 15, "empty": "skip"}),
        Declaration(balls, fronto_parallel_skin, {"region": "skin", "hardest": 0.7, "scope": "batch"}, True),
    ],
}
