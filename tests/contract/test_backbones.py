"""The contract of every shipped backbone, and of the analytic ball that has nothing in common with EG3D."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from contract.small_backbones import SMALL, build, shipped
from priorzoo.backbones.base import Backbone, Latents, Sampling
from priorzoo.core.camera import Camera
from priorzoo.core.registry import BACKBONES
from priorzoo.core.scene import BUFFERS, DERIVED, Scene
from priorzoo.core.streams import Streams
from torch import Tensor
from torch.testing import assert_close

COUNT = 4
MAPS = {"depth": 1, "opacity": 1, "background_transmittance": 1, "surface_depth": 1, "surface_mask": 1, "image_raw": 3,
        "composite_depth": 1, "foreground_raw": 3, "background_raw": 3}  # fmt: skip
PER_INTERVAL = ("weights", "alpha", "distances")
CASES = [pytest.param(name, options, id=f"{name}-{i}") for name, choices in SMALL.items() for i, options in enumerate(choices)]
every_case = pytest.mark.parametrize(("name", "options"), CASES)


def cameras(indices: tuple[int, ...]) -> Camera:
    turn = torch.tensor([0.2 * i - 0.3 for i in indices])
    return Camera.looking_at_origin(turn, 0.5 * turn)


def render(
    backbone: Backbone, needs: set[str] | frozenset[str], *, indices: tuple[int, ...] = tuple(range(COUNT)), step: int = 0,
    **how: Any,
) -> Scene:  # fmt: skip
    streams, camera = Streams(0, step, indices), cameras(indices)
    latents = backbone.prepare(backbone.draw(len(indices), streams), camera.label())
    return backbone.render(latents, camera, frozenset(needs), streams=streams, **how)


def provided(name: str, options: dict[str, Any]) -> frozenset[str]:
    return BACKBONES.get(name).provides(**options)


def tensors(scene: Scene) -> Iterator[tuple[str, Tensor]]:
    for name, value in scene.buffers.items():
        parts = vars(value) if name in ("rays", "samples") else {"": value}
        yield from ((f"{name}.{part}", t) for part, t in parts.items() if isinstance(t, Tensor))


def test_every_shipped_backbone_is_declared() -> None:
    assert sorted(SMALL) == shipped(), "give each backbone small options in small_backbones.py"


@every_case
def test_provides_known_buffers_without_building(name: str, options: dict[str, Any]) -> None:
    offered = provided(name, options)
    assert isinstance(offered, frozenset) and offered <= BUFFERS.keys() | DERIVED.keys()
    assert {"image", "depth", "opacity", "rays", "field"} <= offered
    assert BACKBONES.get(name)(**options).critic_needs() <= offered


@every_case
def test_renders_each_buffer_that_it_offers_when_asked_for_it_alone(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    for buffer in sorted(provided(name, options)):
        assert buffer in render(backbone, {buffer}).buffers, buffer


@every_case
def test_images_are_not_made_unasked(name: str, options: dict[str, Any]) -> None:
    assert not {"image", "image_raw"} & render(build(name, options), {"depth", "opacity"}).buffers.keys()


@every_case
def test_shapes_units_and_sums(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    scene = render(backbone, provided(name, options))
    side, image = backbone.neural_resolution, backbone.image_resolution
    rays = side**2
    for buffer, tensor in tensors(scene):
        assert tensor.dtype == torch.float32 and bool(tensor.isfinite().all()), buffer
    for buffer, channels in MAPS.items():
        if buffer in scene:
            assert scene[buffer].shape == (COUNT, channels, side, side), buffer
    assert scene.image.shape == (COUNT, 3, image, image)
    assert len(scene.camera) == COUNT
    assert (scene.rays.height, scene.rays.width) == (side, side)
    assert scene.rays.origins.shape == scene.rays.directions.shape == (COUNT, rays, 3)
    assert_close(scene.rays.directions.norm(dim=-1), torch.ones(COUNT, rays))
    intervals = scene.weights.shape[-1]
    for buffer in PER_INTERVAL:
        assert scene[buffer].shape == (COUNT, rays, intervals), buffer
    assert scene.edges.shape == (COUNT, rays, intervals + 1)
    assert bool((scene.edges.diff(dim=-1) >= 0).all()) and bool((scene.distances.diff(dim=-1) >= -1e-6).all())
    assert bool((scene.edges[..., :-1] <= scene.distances + 1e-5).all())
    assert bool((scene.distances <= scene.edges[..., 1:] + 1e-5).all())
    assert float(scene.alpha.detach().min()) >= 0 and float(scene.alpha.detach().max()) <= 1
    through = (1.0 - scene.alpha).cumprod(dim=-1)
    before = torch.cat([torch.ones_like(through[..., :1]), through[..., :-1]], dim=-1)
    assert_close(scene.weights, before * scene.alpha, atol=1e-5, rtol=1e-4)
    assert_close(scene.opacity.flatten(1), scene.weights.sum(dim=-1), atol=1e-5, rtol=0)
    assert_close(scene["background_transmittance"], 1.0 - scene.opacity)


@every_case
def test_depth_is_the_mean_of_the_weights(name: str, options: dict[str, Any]) -> None:
    scene = render(build(name, options), provided(name, options))
    opacity = scene.weights.sum(dim=-1)
    full = opacity > 1e-2
    mean = (scene.weights * scene.distances).sum(dim=-1) / opacity
    assert int(full.sum()) > 10
    assert_close(scene.depth.flatten(1)[full], mean[full], atol=1e-4, rtol=0)


@every_case
def test_gradient_reaches_the_generator_and_is_finite(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    for buffer in ("depth", "opacity", "image"):
        scene = render(backbone, {buffer})
        found = torch.autograd.grad(scene[buffer].square().mean(), list(backbone.generator.parameters()), allow_unused=True)
        kept = [g for g in found if g is not None]
        assert kept and all(bool(g.isfinite().all()) for g in kept), buffer
        assert max(float(g.abs().max()) for g in kept) > 0, buffer


@every_case
def test_same_streams_same_scene_whatever_the_global_seed(name: str, options: dict[str, Any]) -> None:
    backbone, scenes = build(name, options), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        scenes.append(render(backbone, provided(name, options)))
        assert torch.equal(before, torch.get_rng_state())
    for (buffer, one), (_, two) in zip(tensors(scenes[0]), tensors(scenes[1]), strict=True):
        assert torch.equal(one, two), buffer
    assert not torch.equal(scenes[0].image, render(backbone, {"image"}, step=1).image)


@every_case
def test_a_sample_does_not_depend_on_the_others(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    together = render(backbone, {"image", "depth", "weights"})
    for index in range(COUNT):
        alone = render(backbone, {"image", "depth", "weights"}, indices=(index,))
        for buffer in ("image", "depth", "weights"):
            assert_close(alone[buffer], together[buffer][index : index + 1], atol=1e-4, rtol=1e-4)


@every_case
def test_deterministic_sampling_draws_no_jitter(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    latents = backbone.prepare(backbone.draw(1, Streams(0, 0, (0,))), None)
    still, random = (
        [
            backbone.render(latents, cameras((0,)), frozenset({"edges"}), streams=Streams(0, 5 * i, (0,)), sampling=how).edges
            for i in range(2)
        ]
        for how in (Sampling("deterministic"), Sampling("random"))
    )
    assert torch.equal(still[0], still[1])
    assert not torch.allclose(random[0], random[1], atol=1e-2)


@every_case
def test_more_samples_and_another_resolution_on_request(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    few = render(backbone, {"weights", "depth"}).weights.shape[-1]
    scene = render(backbone, {"weights", "depth", "image"}, resolution=12, sampling=Sampling("random", 20, 10))
    assert scene.weights.shape[-1] > few
    assert scene.depth.shape[-2:] == (12, 12)
    assert scene.image.shape[-1] == backbone.image_resolution


@every_case
def test_float64_in_float64_out_and_close_to_float32(name: str, options: dict[str, Any]) -> None:
    single = render(build(name, options), {"depth", "image"}, sampling=Sampling("deterministic"))
    double = render(build(name, options).double(), {"depth", "image"}, sampling=Sampling("deterministic"))
    assert double.depth.dtype == torch.float64
    assert_close(single.depth.double(), double.depth, atol=1e-3, rtol=0)
    assert_close(single.image.double(), double.image.double(), atol=1e-2, rtol=0)


@every_case
def test_geometry_stays_float32_under_autocast(name: str, options: dict[str, Any]) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scene = render(build(name, options), provided(name, options))
    for buffer, tensor in tensors(scene):
        assert tensor.dtype == torch.float32, buffer


@every_case
def test_latents_index_interpolate_and_truncate(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    drawn = backbone.draw(COUNT, Streams(0, 0, tuple(range(COUNT))))
    assert isinstance(drawn, Latents) and len(drawn) == COUNT and len(drawn[1:3]) == 2
    whole = backbone.prepare(drawn, None)
    for key, tensor in backbone.prepare(drawn[1:3], None).tensors.items():
        assert_close(tensor, whole[key][1:3], atol=1e-5, rtol=1e-5)
    for key, tensor in whole.lerp(whole, 0.3).tensors.items():
        assert_close(tensor, whole[key])
    for tensor in backbone.prepare(drawn, None, truncation=0.0).tensors.values():
        assert_close(tensor, tensor[:1].expand_as(tensor))
    assert any(not torch.allclose(t, t[:1].expand_as(t)) for t in whole.tensors.values())


@every_case
def test_averages_move_only_when_told(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    drawn = backbone.draw(COUNT, Streams(0, 0, tuple(range(COUNT))))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    backbone.prepare(drawn, None)
    render(backbone, provided(name, options))
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    backbone.prepare(drawn, None, update_averages=True)
    assert any(not torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    assert all(torch.equal(dict(build(name, options).named_parameters())[k], p) for k, p in backbone.named_parameters())


@every_case
def test_field_is_the_rendered_shape_and_twice_differentiable(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options).double()
    latents = backbone.prepare(backbone.draw(2, Streams(0, 0, (0, 1))), None)
    field = backbone.field(latents)
    assert field.kind in ("density", "occupancy", "sdf") and field.extent > 0
    points = (Streams(0, 0, (0, 1))("points").uniform(40, 3).double() - 0.5) * field.extent
    points.requires_grad_(True)
    sample = field(points)
    assert sample.raw.shape == sample.value.shape == (2, 40)
    assert sample.colour is None or sample.colour.shape[:2] == (2, 40)
    if field.kind == "density":
        assert float(sample.value.detach().min()) >= 0
    (slope,) = torch.autograd.grad(sample.raw.sum(), points, create_graph=True)
    assert slope.shape == points.shape and float(slope.detach().abs().max()) > 0
    second = torch.autograd.grad(slope.square().sum(), [points, *backbone.generator.parameters()], allow_unused=True)
    assert any(g is not None and float(g.abs().max()) > 0 for g in second)
    assert all(g is None or bool(g.isfinite().all()) for g in second)


@every_case
def test_field_of_the_scene_agrees_with_field_of_the_latents(name: str, options: dict[str, Any]) -> None:
    backbone, streams = build(name, {**options, **({"noise": "none"} if name == "eg3d" else {})}), Streams(0, 0, (0, 1))
    latents = backbone.prepare(backbone.draw(2, streams), None)
    scene = backbone.render(latents, cameras((0, 1)), frozenset({"field"}), streams=streams)
    points = (streams("points").uniform(40, 3) - 0.5) * scene.field.extent
    assert_close(scene.field(points).raw, backbone.field(latents)(points).raw)


@every_case
def test_critic_sees_generated_and_real_images_alike(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    scene = render(backbone, backbone.critic_needs())
    size = backbone.image_resolution
    real = torch.rand(COUNT, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fake, true = backbone.critic_input(scene), backbone.critic_input(real, backbone.neural_resolution)
    assert {k: v.shape for k, v in fake.items()} == {k: v.shape for k, v in true.items()}
    logits = backbone.criticise(fake, cameras(tuple(range(COUNT))).label())
    assert logits.shape == (COUNT,) and bool(logits.isfinite().all())
    assert backbone.criticise(true, None).shape == (COUNT,)


@every_case
def test_critic_differentiates_twice_for_r1(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    size = backbone.image_resolution
    real = torch.rand(COUNT, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    leaves = {k: v.detach().requires_grad_(True) for k, v in backbone.critic_input(real).items()}
    logits = backbone.criticise(leaves, cameras(tuple(range(COUNT))).label())
    slopes = torch.autograd.grad(logits.sum(), list(leaves.values()), create_graph=True)
    penalty = torch.stack([s.square().sum() for s in slopes]).sum()
    assert backbone.discriminator is not None
    found = torch.autograd.grad(penalty, list(backbone.discriminator.parameters()), allow_unused=True)
    kept = [g for g in found if g is not None]
    assert all(bool(g.isfinite().all()) for g in kept) and max(float(g.abs().max()) for g in kept) > 0


@every_case
def test_parts_share_no_parameter_and_hold_them_all(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    assert backbone.discriminator is not None
    parts = [{id(p) for p in part.parameters()} for part in (backbone.generator, backbone.discriminator)]
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == {id(p) for p in backbone.parameters()}


@every_case
def test_copies_pickles_and_stored_weights_render_the_same(name: str, options: dict[str, Any]) -> None:
    backbone = build(name, options)
    expected = render(backbone, {"image"}).image
    with torch.no_grad():
        for parameter in (loaded := build(name, options)).parameters():
            parameter.zero_()
    loaded.load_state_dict(backbone.state_dict())
    for other in (copy.deepcopy(backbone), pickle.loads(pickle.dumps(backbone)), loaded):
        assert torch.equal(render(other, {"image"}).image, expected)


@pytest.mark.parametrize("name", shipped())
def test_documented(name: str) -> None:
    cls = BACKBONES.get(name)
    assert inspect.getdoc(cls) and inspect.getdoc(cls) != inspect.getdoc(Backbone)
