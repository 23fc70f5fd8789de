"""The EG3D backbone: planes and blockwise evaluation, names and shapes, needs, options, number types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from priorzoo.backbones.base import Latents, Sampling
from priorzoo.backbones.eg3d import EG3D, EG3DOptions, blockwise
from priorzoo.backbones.eg3d.decoder import Decoder
from priorzoo.backbones.eg3d.discriminator import DualDiscriminator
from priorzoo.backbones.eg3d.generator import TriPlaneGenerator
from priorzoo.backbones.eg3d.planes import AXES, plane_grid, sample_planes, sample_planes_smoothly
from priorzoo.backbones.eg3d.renderer import render_rays
from priorzoo.backbones.eg3d.superresolution import SuperResolution
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.registry import BACKBONES
from priorzoo.core.streams import Streams, fixed_streams
from priorzoo.rendering.normals import normals_from_field
from torch import Tensor

TINY: dict[str, Any] = {
    "z_dim": 8, "w_dim": 12, "plane_resolution": 16, "plane_channels": 4, "channel_base": 128, "channel_max": 16, "decoder_hidden": 8,
    "superresolution": "none", "feature_channels": 3, "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 6,
    "samples_fine": 6, "noise": "none", "conditioning": "none", "white_back": True, "discriminator_channel_base": 128,
    "discriminator_channel_max": 16, "discriminator_mapping_layers": 2,
}  # fmt: skip
GEOMETRY = frozenset({"depth", "opacity", "weights", "distances", "edges", "rays"})


@pytest.fixture(autouse=True)
def same_weights_every_time() -> None:
    torch.manual_seed(0)


def tiny(**changes: Any) -> EG3D:
    torch.manual_seed(0)
    return EG3D(**{**TINY, **changes})


def cameras(count: int) -> Camera:
    return Camera.looking_at_origin(torch.linspace(-0.4, 0.4, count), torch.linspace(0.1, -0.1, count))


def prepared(backbone: EG3D, count: int = 2) -> Latents:
    return backbone.prepare(backbone.draw(count, fixed_streams(0, count)), None)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Planes and decoder


def test_smooth_plane_reading_equals_the_operator() -> None:
    planes, points = numbers(2, 3, 4, 5, 6).requires_grad_(), (numbers(2, 40, 3, seed=1) * 0.5).requires_grad_()
    grid = plane_grid(points, 1.0, AXES["official"])  # reaches beyond the planes
    fast, smooth = sample_planes(planes, grid), sample_planes_smoothly(planes, grid)
    assert torch.allclose(fast, smooth)
    weight = numbers(*fast.shape, seed=2)
    for a, b in zip(
        torch.autograd.grad(fast, [planes, points], weight, retain_graph=True),
        torch.autograd.grad(smooth, [planes, points], weight),
        strict=True,
    ):
        assert torch.allclose(a, b)


def test_smooth_plane_reading_is_twice_differentiable() -> None:
    planes, grid = numbers(1, 3, 1, 3, 3).requires_grad_(), (numbers(1, 3, 2, 2, seed=1) * 0.4).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda p, g: sample_planes_smoothly(p, g).sin(), (planes, grid))


def test_axes_of_the_planes() -> None:
    grid = plane_grid(torch.tensor([[[0.1, 0.2, 0.3]]]), 2.0, AXES["official"])
    assert grid[0, :, 0].tolist() == pytest.approx(torch.tensor([[0.1, 0.2], [0.1, 0.3], [0.3, 0.1]]))
    assert plane_grid(torch.tensor([[[0.1, 0.2, 0.3]]]), 2.0, AXES["corrected"])[0, 2, 0].tolist() == pytest.approx([0.3, 0.2])


@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("used", ["both", "raw", "colour"])
def test_blockwise_evaluation_equals_the_plain_one(colours: bool, used: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not colours and used != "raw":
        used = "raw"
    monkeypatch.setattr(blockwise, "SMALLEST_BLOCK", 40)  # several blocks, the last one shorter
    decoder = Decoder(4, 8, 3, density_gain=3.0).double()
    planes = numbers(2, 3, 4, 5, 5).requires_grad_()
    origins, directions = numbers(2, 7, 3, seed=1) * 0.2, numbers(2, 7, 3, seed=2)
    distances = numbers(2, 7, 9, seed=3) * 0.3
    results = []
    for function in (blockwise.evaluate_samples, blockwise.reference_samples):
        raw, colour = function(planes, decoder, origins, directions, distances, box_warp=1.0, axes=AXES["corrected"], colours=colours)
        assert raw.shape == (2, 7, 9) and (colour.shape == (2, 3, 7, 9) if colours and colour is not None else colour is None)
        loss = (raw * numbers(*raw.shape, seed=4)).sum() if used != "colour" else raw.new_zeros(())
        if colour is not None and used != "raw":
            loss = loss + (colour * numbers(*colour.shape, seed=5)).sum()
        wanted = [planes, *decoder.parameters()]
        results.append([raw, *torch.autograd.grad(loss, wanted, allow_unused=True)])
    for got, plain in zip(*results, strict=True):
        assert torch.allclose(got, plain)
    with torch.no_grad():
        quiet, _ = blockwise.evaluate_samples(planes, decoder, origins, directions, distances, box_warp=1.0, axes=AXES["corrected"])
    assert torch.allclose(quiet, results[0][0])


# Names and shapes


def test_names_and_shapes_are_the_published_ones() -> None:
    """The full-size FFHQ-512 model, without allocating it."""
    shapes = json.loads((Path(__file__).parent / "golden/eg3d/ffhq512_shapes.json").read_text())
    with torch.device("meta"):
        generator = TriPlaneGenerator(EG3DOptions())
        discriminator = DualDiscriminator(resolution=512)
    for module, name in ((generator, "TriPlaneGenerator"), (discriminator, "DualDiscriminator")):
        assert {key: list(value.shape) for key, value in module.state_dict().items()} == shapes[name]
    assert sum(p.numel() for p in generator.parameters()) == 30_662_136
    assert sum(p.numel() for p in discriminator.parameters()) == 31_359_744


@pytest.mark.parametrize(("name", "size", "stored"), [("2x", 128, True), ("4x", 256, True), ("8x", 512, True), ("8xdc", 512, False)])
def test_superresolution_modules(name: str, size: int, stored: bool) -> None:
    full = SuperResolution(name, feature_channels=32, w_dim=512)
    assert full.resolution == size and ("resample_filter" in full.state_dict()) == stored
    small = SuperResolution(name, feature_channels=4, w_dim=6, channels=(5, 4), input_size=8)
    image, raw = small(torch.randn(1, 4, 8, 8), torch.randn(1, 3, 6))
    assert image.shape[-1] == small.resolution == size // full.input_size * 8 and raw.shape[-1] == 8
    assert small(torch.randn(1, 4, 6, 6), torch.randn(1, 3, 6))[0].shape == image.shape
    if name == "4x":
        with pytest.raises(PriorzooError, match="at most 8"):
            small(torch.randn(1, 4, 9, 9), torch.randn(1, 3, 6))


# Rendering


def test_registered_and_renders_what_is_needed() -> None:
    backbone = BACKBONES.create("eg3d", **TINY)
    scene = backbone.render(prepared(backbone), cameras(2), GEOMETRY, streams=fixed_streams(0, 2))
    assert scene.depth.shape == (2, 1, 8, 8) and scene.weights.shape == (2, 64, 11) and scene.edges.shape == (2, 64, 12)
    assert "image" not in scene and "image_raw" not in scene
    assert ((scene.opacity >= 0) & (scene.opacity <= 1 + 1e-6)).all()
    assert torch.allclose(scene.background_transmittance + scene.opacity, torch.ones(2, 1, 8, 8), atol=1e-6)
    assert (scene.distances.diff(dim=-1) >= 0).all() and scene.normals.shape == (2, 3, 8, 8)
    only = backbone.render(prepared(backbone), cameras(2), frozenset({"field"}), streams=fixed_streams(0, 2))
    assert set(only.buffers) == {"field"}
    with pytest.raises(PriorzooError, match="surface_depth"):
        backbone.render(prepared(backbone), cameras(2), frozenset({"surface_depth"}), streams=fixed_streams(0, 2))


def test_superresolution_runs_for_the_image_alone() -> None:
    backbone = tiny(superresolution="2x", superresolution_input=8, superresolution_channels=(6, 4), feature_channels=6)
    calls: list[int] = []
    backbone.generator.superresolution.register_forward_hook(lambda *_: calls.append(1))
    latents, streams = prepared(backbone), fixed_streams(0, 2)
    raw = backbone.render(latents, cameras(2), frozenset({"image_raw", "depth"}), streams=streams)
    assert not calls and raw.image_raw.shape == (2, 3, 8, 8)
    both = backbone.render(latents, cameras(2), backbone.critic_needs(), streams=streams)
    assert len(calls) == 1 and both.image.shape == (2, 3, 16, 16)
    assert torch.equal(both.image_raw, raw.image_raw)
    assert backbone.criticise(backbone.critic_input(both), cameras(2).label()).shape == (2,)


def test_image_is_the_rendering_where_there_is_no_superresolution() -> None:
    backbone = tiny()
    latents, streams = prepared(backbone), fixed_streams(0, 2)
    same = backbone.render(latents, cameras(2), frozenset({"image"}), streams=streams, resolution=16)
    assert torch.equal(same.image, same.image_raw)
    grown = backbone.render(latents, cameras(2), frozenset({"image"}), streams=streams)
    assert grown.image.shape[-1] == 16 and grown.image_raw.shape[-1] == 8
    real = backbone.critic_input(torch.randn(2, 3, 16, 16).clamp(-1, 1), resolution=8)["image"]
    again = backbone.critic_input(real, resolution=16)["image"]
    assert torch.equal(real, again) and set(backbone.critic_input(grown)) == {"image"}


def test_splitting_a_batch_changes_nothing() -> None:
    backbone = tiny(noise="random")
    torch.nn.init.constant_(backbone.generator.get_parameter("backbone.synthesis.b16.conv1.noise_strength"), 0.5)
    streams, needs = Streams(3, 7, (0, 1, 2, 3)), frozenset({"image", "depth"})

    def render(positions: list[int]) -> Any:
        part = streams.take(positions)
        latents = backbone.prepare(backbone.draw(len(positions), part), None)
        return backbone.render(latents, cameras(4)[positions], needs, streams=part)

    whole, half = render([0, 1, 2, 3]), render([2, 3])
    assert torch.allclose(whole.image[2:], half.image, atol=1e-5) and torch.allclose(whole.depth[2:], half.depth, atol=1e-5)


def test_deterministic_sampling_does_not_depend_on_streams() -> None:
    backbone = tiny()
    latents = prepared(backbone)
    dense = Sampling("deterministic", coarse=9, fine=4)
    a, b = (backbone.render(latents, cameras(2), GEOMETRY, streams=fixed_streams(seed, 2), sampling=dense) for seed in (1, 2))
    assert torch.equal(a.depth, b.depth) and a.weights.shape[-1] == 12
    c, d = (backbone.render(latents, cameras(2), GEOMETRY, streams=fixed_streams(seed, 2)) for seed in (1, 2))
    assert not torch.equal(c.depth, d.depth)
    with pytest.raises(PriorzooError, match="random, deterministic"):
        backbone.render(latents, cameras(2), GEOMETRY, streams=fixed_streams(0, 2), sampling=Sampling("dense"))


def test_all_samples_carry_gradient() -> None:
    """A coarse pass without gradient makes faces hollow: both passes must reach the planes."""
    backbone = tiny(noise="none")
    latents = backbone.with_planes(prepared(backbone))
    scene = backbone.render(latents, cameras(2), frozenset({"depth", "samples"}), streams=fixed_streams(0, 2))
    (gradient,) = torch.autograd.grad(scene.depth.sum(), scene.samples.raw)
    coarse, fine = gradient[..., :6].abs().sum(-1) > 0, gradient[..., 6:].abs().sum(-1) > 0
    assert coarse.float().mean() > 0.9 and fine.float().mean() > 0.9


def test_field_agrees_with_the_render_and_is_twice_differentiable() -> None:
    backbone = tiny().double()
    latents = prepared(backbone)
    scene = backbone.render(latents, cameras(2), frozenset({"samples", "rays", "field"}), streams=fixed_streams(0, 2))
    assert scene.samples.raw.dtype == torch.float64
    points = scene.rays.origins[:, :, None] + scene.rays.directions[:, :, None] * scene.samples.distances[..., None]
    sample = scene.field(points.flatten(1, 2))
    assert torch.allclose(sample.raw.view_as(scene.samples.raw), scene.samples.raw, atol=1e-5)  # rays were made in float32
    assert scene.field.kind == "density" and scene.field.extent == 0.5 and (sample.value >= 0).all()
    field = backbone.field(latents)
    inside = (torch.rand(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5) * 0.8
    normals = normals_from_field(field, inside)
    differences = normals_from_field(field, inside, "finite_differences", step=1e-6)
    assert torch.allclose(normals, differences, atol=1e-4)
    weight = backbone.generator.get_parameter("backbone.synthesis.b4.const")
    (gradient,) = torch.autograd.grad(normals[..., 2].sum(), weight)
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_float64_in_float64_out() -> None:
    backbone = tiny().double()
    camera = cameras(2).to(torch.float64)
    scene = backbone.render(prepared(backbone), camera, GEOMETRY | {"image"}, streams=fixed_streams(0, 2))
    for name in ("depth", "opacity", "weights", "distances", "image"):
        assert scene[name].dtype == torch.float64


def test_rendering_stays_float32_under_autocast() -> None:
    backbone = tiny(superresolution="2x", superresolution_input=8, superresolution_channels=(6, 4), feature_channels=6)
    needs = GEOMETRY | {"image", "image_raw"}
    latents, streams = prepared(backbone), fixed_streams(0, 2)
    plain = backbone.render(latents, cameras(2), needs, streams=streams)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scene = backbone.render(prepared(backbone), cameras(2), needs, streams=streams)
        logits = backbone.criticise(backbone.critic_input(scene), cameras(2).label())
    for name in needs - {"rays"}:
        assert scene[name].dtype == torch.float32
    assert torch.isfinite(logits.float()).all()
    assert (scene.image_raw - plain.image_raw).abs().max() < 0.3


def test_r1_and_the_generator_step_reach_every_parameter() -> None:
    backbone = tiny(superresolution="2x", superresolution_input=8, superresolution_channels=(6, 4), feature_channels=6,
                    conditioning="camera", noise="random")  # fmt: skip
    camera, streams = cameras(4), fixed_streams(0, 4)
    latents = backbone.prepare(backbone.draw(4, streams), camera.label(), update_averages=True)
    scene = backbone.render(latents, camera, backbone.critic_needs(), streams=streams)
    inputs = {name: tensor.detach().requires_grad_() for name, tensor in backbone.critic_input(scene).items()}
    logits = backbone.criticise(inputs, camera.label())
    gradients = torch.autograd.grad(logits.sum(), list(inputs.values()), create_graph=True)
    (sum(g.square().sum() for g in gradients) + logits.sum()).backward()
    backbone.criticise(backbone.critic_input(scene), camera.label()).sum().backward()
    # Super-resolution is told to render without noise.
    silent = {name for name, _ in backbone.named_parameters() if "superresolution" in name and "noise_strength" in name}
    for name, parameter in backbone.named_parameters():
        assert (parameter.grad is not None) != (name in silent), name
    assert backbone.generator.mapping.w_avg.abs().sum() > 0


def test_state_round_trip_and_planes_are_shared() -> None:
    first, second = tiny(), EG3D(**TINY)
    second.load_state_dict(first.state_dict())
    streams = fixed_streams(0, 2)
    latents = first.with_planes(prepared(first))
    a = first.render(latents, cameras(2), frozenset({"image"}), streams=streams)
    b = second.render(prepared(second), cameras(2), frozenset({"image"}), streams=streams)
    assert torch.equal(a.image, b.image) and first.with_planes(latents) is latents


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"plane_resolutoin": 64}, "did you mean 'plane_resolution'"),
        ({"plane_axes": "offical"}, "did you mean 'official'"),
        ({"superresolution": "DeepFp32"}, "DeepFp32"),
        ({"superresolution": "8xcd"}, "did you mean '8xdc'"),
        ({"superresolution": "2x"}, "makes images of 128"),
        ({"plane_resolution": 48}, "power of two"),
        ({"near": "auto"}, "both 'auto'"),
        ({"near": 3.5, "far": 3.3}, "near < far"),
        ({"importance": "exact"}, "official, corrected"),
        ({"noise": "rand"}, "random, const, none"),
        ({"samples_coarse": 3}, "samples_coarse must be at least 4"),
        ({"feature_channels": 1}, "feature_channels must be at least 3"),
    ],
)
def test_impossible_options_are_refused_before_building(options: dict[str, Any], says: str) -> None:
    with pytest.raises(PriorzooError) as caught:
        EG3D.provides(**options)
    assert says in str(caught.value)


def test_wrong_inputs_are_refused() -> None:
    backbone = tiny(discriminator="dual")
    with pytest.raises(PriorzooError, match="image_raw"):
        backbone.criticise({"image": torch.zeros(4, 3, 16, 16)}, None)
    with pytest.raises(PriorzooError, match="16 pixels"):
        backbone.criticise({"image": torch.zeros(4, 3, 8, 8)}, None)
    with pytest.raises(PriorzooError, match="3 latents"):
        backbone.draw(3, fixed_streams(0, 2))


def test_automatic_bounds_of_rays_that_miss() -> None:
    """A ray from z = 2.7 passes the box between 2.2 and 3.2; one that misses takes these ends, or the slip's."""
    origins = torch.tensor([[[0.0, 0.0, 2.7], [5.0, 0.0, 2.7]]])
    directions = torch.tensor([[[0.0, 0.0, -1.0], [0.0, 0.0, -1.0]]])
    ends = {}
    for name in ("official", "corrected"):
        options = EG3DOptions(**{**TINY, "near": "auto", "far": "auto", "automatic_bounds": name}).rendering()
        decoder = Decoder(2, 4, 3)
        jitter = torch.full((1, 2, 4), 0.5)
        ends[name] = render_rays(torch.zeros(1, 3, 2, 8, 8), decoder, origins, directions, options, jitter=jitter, u=None).far
    assert ends["official"].flatten().tolist() == pytest.approx([3.2, 2.2])
    assert ends["corrected"].flatten().tolist() == pytest.approx([3.2, 3.2])
