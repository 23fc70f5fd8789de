"""GOF's rendering reproduces the published code's tensors: field, normals, integration, root finding, forward passes, gradients."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from pigan_golden import GOLDEN, SIZES, io, weights
from priorzoo.backbones.base import Latents
from priorzoo.backbones.pigan import GOF
from priorzoo.backbones.pigan.field import WORLD_UNITS
from priorzoo.core.camera import Camera, focal_from_field_of_view
from priorzoo.core.scene import Scene
from priorzoo.rendering.normals import normals_from_field
from priorzoo.rendering.roots import first_surface, level_of, region_distances, surface_region
from priorzoo.rendering.samples import density_of, march_occupancies, march_samples, published_occupancy_weights
from test_pigan_rendering import DOUBLE, PRECISIONS, SINGLE, StoredStreams, near
from torch import Tensor
from torch.testing import assert_close

CONFIG = json.loads((GOLDEN / "gof_config.json").read_text())
NEEDS = frozenset({"image", "depth", "opacity", "samples", "surface_depth"})
HALF_PI = math.pi / 2


def golden(dtype: torch.dtype) -> dict[str, Tensor]:
    return io(dtype, "gof")


def model(dtype: torch.dtype, **options: Any) -> GOF:
    backbone = GOF(
        **SIZES, near=CONFIG["near"], far=CONFIG["far"], samples_coarse=CONFIG["nc"], samples_surface=CONFIG["ns"],
        samples_fine=CONFIG["nf"], rays="corners", depth="as_published", neural_resolution=16, image_resolution=16,
        interval_min=CONFIG["delta"], discriminator_channel_max=2, **options,
    )  # fmt: skip
    missing, unexpected = backbone.generator.load_state_dict(weights(SINGLE, "gof"), strict=False)
    assert not unexpected and missing == ["average_frequencies", "average_phases"]
    backbone.to(dtype)
    backbone.generator.average_frequencies.copy_(golden(dtype)["avg_frequencies"][0])
    backbone.generator.average_phases.copy_(golden(dtype)["avg_phase_shifts"][0])
    return backbone


def rendered(
    backbone: GOF, call: str, dtype: torch.dtype, pitch_yaw: Tensor, truncation: float = 1.0, needs: frozenset[str] = NEEDS
) -> Scene:
    stored = golden(dtype)
    streams: Any = StoredStreams(jitter=[stored[f"{call}_draw2_rand"]], importance=[stored[f"{call}_draw3_rand"]])
    latents = backbone.prepare(Latents({"z": stored["z"]}), None, truncation=truncation)
    camera = Camera.from_pitch_yaw(*pitch_yaw.unbind(dim=1), focal=focal_from_field_of_view(12.0))
    return backbone.render(latents, camera, needs, streams=streams)


def assert_weights_close(found: Tensor, expected: Tensor) -> None:
    """1e-8 in float64. In float32 1e-3 but for a few samples near roots that moved: there the reference itself errs by 0.004."""
    if found.dtype == DOUBLE:
        assert_close(found, expected, atol=1e-8, rtol=0)
    else:
        assert float(((found - expected).abs() < 1e-3).float().mean()) > 0.997
        assert_close(found, expected, atol=0.02, rtol=0)


def evaluation_view(dtype: torch.dtype) -> Tensor:
    return torch.tensor([[HALF_PI, HALF_PI + 0.3]], dtype=dtype).expand(2, 2)


# ------------------------------------------------------------------------------------------------ pieces


@PRECISIONS
def test_field_and_normals_reproduce_the_reference(dtype: torch.dtype) -> None:
    stored, backbone = golden(dtype), model(dtype)
    latents = backbone.prepare(Latents({"z": stored["z"]}), None)
    assert_close(latents["frequencies"], stored["map_frequencies"], **near(dtype, 1e-4))
    assert_close(latents["phases"], stored["map_phase_shifts"], **near(dtype, 1e-4))
    field, points = backbone.field(latents), stored["siren_points"] * WORLD_UNITS
    sample = field(points, stored["siren_dirs"])  # type: ignore[call-arg]
    assert field.kind == "occupancy" and sample.colour is not None
    # the golden's logits are 60 times an untrained network's
    logits = {"atol": 1e-8, "rtol": 0.0} if dtype == DOUBLE else {"atol": 1e-2, "rtol": 1e-3}
    assert_close(sample.raw, stored["siren_rgb_logit"][..., 3], **logits)
    assert_close(sample.value, stored["siren_rgb_logit"][..., 3].sigmoid(), **near(dtype, 1e-3))
    assert_close((sample.colour + 1) / 2, stored["siren_rgb_logit"][..., :3], **near(dtype, 1e-3))
    if dtype == DOUBLE:
        assert_close(normals_from_field(field, points), stored["siren_normals"], atol=1e-7, rtol=0)  # 1e-7 stands beside the norm there


@PRECISIONS
@pytest.mark.parametrize("case", ["occ", "occ_last", "occ_white"])
def test_integration_reproduces_the_reference(dtype: torch.dtype, case: str) -> None:
    stored = golden(dtype)
    rgb, raw = stored["integ_in_rgb_logit"].split([3, 1], dim=-1)
    raw, distances = raw[..., 0], stored["integ_in_z"][..., 0]
    march = march_occupancies(raw, distances, 2.0, last_back=case == "occ_last")
    colours = (rgb * march.weights[..., None]).sum(dim=2)
    if case == "occ_white":
        colours = colours + march.background_transmittance[..., None]
    opacity = 1 - march.background_transmittance + 1e-5  # the published sum is taken before the last sample gets the rest
    depth = (march.weights * distances).sum(dim=-1) / opacity
    count = distances.shape[-1]
    variance = (march.weights * (distances - depth[..., None]).square()).sum(dim=-1) / (opacity * (count - 1) / count)
    assert_close(march.weights, stored[f"integ_{case}_weights"][..., 0], **near(dtype, 1e-4))
    assert_close(colours, stored[f"integ_{case}_rgb"], **near(dtype, 1e-4))
    relative = 1e-8 if dtype == DOUBLE else 1e-4  # not small where next to nothing is divided by
    assert_close(depth, stored[f"integ_{case}_depth"][..., 0], atol=relative, rtol=relative)
    assert_close(variance, stored[f"integ_{case}_depth_var"][..., 0], atol=relative, rtol=relative)


@PRECISIONS
def test_density_integration_of_the_same_code(dtype: torch.dtype) -> None:
    stored = golden(dtype)
    raw, distances = stored["integ_in_rgb_logit"][..., 3], stored["integ_in_z"][..., 0]
    march = march_samples(density_of(raw, "relu"), distances, 2.0)
    assert_close(march.weights, stored["integ_density_weights"][..., 0], **near(dtype, 1e-4))
    depth = (march.weights * distances).sum(dim=-1) / (march.opacity + 1e-5)
    assert_close(depth, stored["integ_density_depth"][..., 0], **near(dtype, 1e-4))


@PRECISIONS
@pytest.mark.parametrize("method", ["secant", "bisection"])
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_roots_and_regions_of_a_ball_reproduce_the_reference(dtype: torch.dtype, method: str, threshold: float) -> None:
    stored = golden(dtype)
    origins, directions, steps = stored["sphere/ray_o"], stored["sphere/ray_d"], stored["sphere/coarse_z"][..., 0]

    def logit(t: Tensor) -> Tensor:
        return 100.0 * (0.07 - (origins[:, :, None] + directions[:, :, None] * t[..., None]).norm(dim=-1))

    surface = first_surface(
        lambda t: logit(t[..., None])[..., 0], logit(steps), steps, 1.12, level=level_of(threshold), method=method, steps=4
    )  # fmt: skip
    for half_width in (0.03, 0.12):
        case = f"sphere/{method}/tau{threshold}/delta{half_width}"
        found = stored[f"{case}/mask"].bool()
        assert torch.equal(surface.found, found) and 5 < int(found.sum()) < 70
        assert_close(surface.distances[found], stored[f"{case}/pred_depth"][found], **near(dtype, 5e-4))
        low, high = surface_region(surface, half_width, 0.88, 1.12)
        drawn = region_distances(low, high, torch.full((1, 81, 5), 0.5, dtype=dtype))
        assert_close(drawn, stored[f"{case}/surface_z"][..., 0], **near(dtype, 5e-4))


# ------------------------------------------------------------------------------------------------ whole passes


@PRECISIONS
def test_forward_reproduces_every_stage_of_the_reference(dtype: torch.dtype) -> None:
    stored, backbone = golden(dtype), model(dtype)
    scene = rendered(backbone, "fwd", dtype, stored["fwd_pos"])
    found = stored["fwd_mask"].bool()
    surface = scene.surface_depth.flatten(1) / WORLD_UNITS
    assert_close(surface[found], stored["fwd_pred_depth_raw"][found], **near(dtype, 5e-4))
    assert torch.equal(surface < CONFIG["far"] - 1e-6, found) and 0.1 < float(found.float().mean()) < 1
    assert scene.samples.coarse == CONFIG["ns"]
    assert_close(scene.distances / WORLD_UNITS, stored["fwd_all_z"][..., 0], **near(dtype, 5e-4))
    assert_weights_close(scene.weights, stored["fwd_integ_weights"][..., 0])
    assert_close(scene.image, stored["fwd_imgs"], **near(dtype, 1e-3))
    assert_close((scene.image.flatten(2).transpose(1, 2) + 1) / 2, stored["fwd_integ_rgb"], **near(dtype, 1e-3))
    assert_close(scene.depth.flatten(1) / WORLD_UNITS, stored["fwd_integ_depth"][..., 0], **near(dtype, 1e-3))
    bounds = CONFIG["near"], CONFIG["far"]
    assert_close((scene.depth.flatten(1) / WORLD_UNITS).clamp(*bounds), stored["fwd_depth_map"][..., 0], **near(dtype, 1e-3))
    raw = scene.samples.raw.gather(-1, scene.samples.distances.argsort(dim=-1))
    if dtype == DOUBLE:
        assert_close(raw, stored["fwd_all_rgb_logit"][..., 3], **near(dtype, 0))
    occupancy = raw.detach().sigmoid() - stored["fwd_occupancy"]
    if dtype == DOUBLE:
        assert float(occupancy.abs().max()) < 1e-7  # stored in single precision
    assert float((occupancy.abs() < 5e-3).float().mean()) > 0.997


def test_coarse_stage_is_that_of_the_reference() -> None:
    stored = golden(DOUBLE)
    raw, steps = stored["fwd_coarse_rgb_logit"][..., 3], stored["fwd_coarse_z"][..., 0]
    assert_close(published_occupancy_weights(raw), stored["fwd_coarse_weights"][..., 0], atol=1e-8, rtol=0)
    assert_close(march_occupancies(raw, steps, 1.12).weights, stored["fwd_coarse_weights"][..., 0], atol=1e-8, rtol=0)
    surface = first_surface(lambda t: t, raw, steps, 1.12, steps=0)  # only whether there is one
    assert torch.equal(surface.found, stored["fwd_mask"].bool())
    found = surface.found
    known = type(surface)(torch.where(found, stored["fwd_pred_depth_raw"], 1.12), found)
    drawn = region_distances(*surface_region(known, CONFIG["delta"], 0.88, 1.12), torch.full((2, 256, 9), 0.5, dtype=DOUBLE))
    assert_close(drawn, stored["fwd_surface_z_unperturbed"][..., 0], atol=1e-8, rtol=0)


def test_gradients_reproduce_the_reference() -> None:
    stored, backbone = golden(DOUBLE), model(DOUBLE)
    loss = rendered(backbone, "fwd", DOUBLE, stored["fwd_pos"]).image.square().mean()
    assert_close(loss, stored["loss/img_meansq"], atol=1e-8, rtol=0)
    loss.backward()
    for name, parameter in backbone.generator.named_parameters():
        assert parameter.grad is not None
        assert_close(parameter.grad.norm(), stored[f"gradnorm/img_meansq/{name}"], atol=1e-8, rtol=1e-7)


@PRECISIONS
def test_evaluation_with_truncation(dtype: torch.dtype) -> None:
    stored, backbone = golden(dtype), model(dtype, last_back=True)
    scene = rendered(backbone, "staged", dtype, evaluation_view(dtype), truncation=0.7)
    found = stored["staged_mask"].bool()
    surface = scene.surface_depth[:, 0] / WORLD_UNITS
    assert_close(surface[found], stored["staged_pred_depth"][found], **near(dtype, 5e-4))
    assert_close(scene.image, stored["staged_imgs"], **near(dtype, 2e-3))
    bounds = CONFIG["near"], CONFIG["far"]
    assert_close((scene.depth[:, 0] / WORLD_UNITS).clamp(*bounds), stored["staged_depth_map"], **near(dtype, 1e-3))
    assert_weights_close(scene.weights, stored["staged_weights"][..., 0])
    if dtype == DOUBLE:
        points = scene.rays.origins + scene.rays.directions * scene.surface_depth.flatten(1)[..., None]
        normals = normals_from_field(scene.field, points).transpose(1, 2).reshape(2, 3, 16, 16)
        everywhere = found[:, None].expand_as(normals)
        assert_close((normals / 2 + 0.5)[everywhere], stored["staged_surface_normals"][everywhere], atol=1e-7, rtol=0)


@PRECISIONS
def test_colours_of_the_surface_alone(dtype: torch.dtype) -> None:
    stored, backbone = golden(dtype), model(dtype, compositing="surface_only")
    scene = rendered(backbone, "staged", dtype, evaluation_view(dtype), truncation=0.7)
    found = stored["staged_mask"].bool()
    everywhere = found[:, None].expand(-1, 3, -1, -1)
    single = 1e-7 if dtype == DOUBLE else 1e-2  # stored in single precision; in which the reference itself errs by 0.005
    assert_close(((scene.image + 1) / 2)[everywhere], stored["staged_single_imgs"][everywhere], atol=single, rtol=0)
    assert torch.equal(scene.opacity[:, 0], found.to(dtype))
    assert bool((scene.image[~everywhere] == -1).all())  # the reference shows the colour at distance 1 there
    assert_close(scene.depth[:, 0][found], (scene.surface_depth[:, 0] / (1 + 1e-5))[found])


@PRECISIONS
def test_the_bracketed_surface_of_the_depth_variance_protocol(dtype: torch.dtype) -> None:
    stored, backbone = golden(dtype), model(dtype)
    for index in range(2):
        steps, raw = stored[f"sigma_ti/{index}/z"][..., 0], stored[f"sigma_ti/{index}/coarse_logit"]
        occupancy = torch.where(steps > stored[f"sigma_ti/{index}/cut_depth"][..., 0], raw.sigmoid(), 0.0)
        assert steps.shape == (1, 256, 36) and backbone.half_width == CONFIG["delta"]
        w = published_occupancy_weights(torch.logit(occupancy))
        full = w.sum(dim=-1) > 0.99
        w, t = w[full], steps[full]
        total = w.sum(dim=-1) + 1e-5
        mean = (w * t).sum(dim=-1, keepdim=True) / total[:, None]
        variance = (w * (t - mean).square()).sum(dim=-1) / (total * 35 / 36)
        expected = stored[f"sigma_ti/{index}/per_ray_var"].flatten()
        assert_close(variance, expected, **near(dtype, 1e-5))
        assert_close(variance.mean(), stored[f"sigma_ti/{index}/value"], **near(dtype, 1e-5))
