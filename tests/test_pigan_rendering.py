"""pi-GAN's rendering reproduces the published code's tensors: integration, resampling, forward passes with and without truncation."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from pigan_golden import GOLDEN, SIZES, io, weights
from priorzoo.backbones.base import Latents
from priorzoo.backbones.pigan import PiGAN
from priorzoo.backbones.pigan.field import WORLD_UNITS
from priorzoo.core.camera import Camera, focal_from_field_of_view
from priorzoo.core.scene import Scene
from priorzoo.rendering.rays import rays_from_camera
from priorzoo.rendering.samples import density_of, jittered_distances, march_samples, published_weights, resampled_distances
from priorzoo.rendering.sampling import inverse_cdf
from torch import Tensor
from torch.testing import assert_close

DOUBLE, SINGLE = torch.float64, torch.float32
PRECISIONS = pytest.mark.parametrize("dtype", [DOUBLE, SINGLE], ids=["f64", "f32"])
CONFIG = json.loads((GOLDEN / "pigan_config.json").read_text())
NEEDS = frozenset({"image", "depth", "opacity", "samples"})


def near(dtype: torch.dtype, single: float) -> dict[str, float]:
    return {"atol": 1e-8 if dtype == DOUBLE else single, "rtol": 0.0}


class StoredStreams:
    """Streams that hand out the reference's random numbers in the order of their calls."""

    def __init__(self, **draws: list[Tensor]) -> None:
        self._draws = draws

    def __call__(self, consumer: str) -> Any:
        left = iter(self._draws[consumer])

        class Stored:
            def uniform(self, *shape: int) -> Tensor:
                return next(left).reshape(-1, *shape).clone()

            normal = uniform

        return Stored()


def model(dtype: torch.dtype, **options: Any) -> PiGAN:
    backbone = PiGAN(
        **SIZES, near=CONFIG["near"], far=CONFIG["far"], samples_coarse=6, samples_fine=options.pop("samples_fine", 6), rays="corners",
        depth="as_published", neural_resolution=16, image_resolution=16, discriminator_channel_max=2, **options,
    )  # fmt: skip
    missing, unexpected = backbone.generator.load_state_dict(weights(SINGLE), strict=False)
    assert not unexpected and missing == ["average_frequencies", "average_phases"]
    stored = io(dtype)
    backbone.to(dtype)
    backbone.generator.average_frequencies.copy_(stored["avg_frequencies"][0])
    backbone.generator.average_phases.copy_(stored["avg_phase_shifts"][0])
    return backbone


def camera(pitch_yaw: Tensor) -> Camera:
    return Camera.from_pitch_yaw(*pitch_yaw.unbind(dim=1), focal=focal_from_field_of_view(CONFIG["fov"]))


def rendered(backbone: PiGAN, call: str, dtype: torch.dtype, pitch_yaw: Tensor, truncation: float = 1.0, noise: float = 0.0) -> Scene:
    stored = io(dtype)
    backbone.noise_deviation = noise
    noises = [stored[f"{call}_draw{i}_randn"] for i in (3, 5) if f"{call}_draw{i}_randn" in stored]
    streams: Any = StoredStreams(
        jitter=[stored[f"{call}_draw0_rand"]],
        importance=[stored.get(f"{call}_draw4_rand", torch.empty(0))],
        density_noise=[*noises, torch.zeros(2, 256, 6, dtype=dtype)],
    )
    latents = backbone.prepare(Latents({"z": stored["z"]}), None, truncation=truncation)
    return backbone.render(latents, camera(pitch_yaw), NEEDS, streams=streams)


# ------------------------------------------------------------------------------------------------ pieces


@PRECISIONS
@pytest.mark.parametrize("case", ["relu", "softplus", "last", "white", "lastwhite", "fillw", "noise"])
def test_integration_reproduces_the_reference(dtype: torch.dtype, case: str) -> None:
    stored = io(dtype)
    rgb, raw = stored["integ_in_rgb_sigma"].split([3, 1], dim=-1)
    raw, distances = raw[..., 0], stored["integ_in_z"][..., 0]
    if case == "noise":
        raw = raw + 3.0 * stored["integ_noise_randn"][..., 0].to(dtype)
    density = density_of(raw, "softplus" if case in ("softplus", "lastwhite") else "relu")
    march = march_samples(density, distances, 2.0, last_back=case in ("last", "lastwhite"))
    colours = (rgb * march.weights[..., None]).sum(dim=2)
    if case in ("white", "lastwhite"):  # as published, with both flags the background is added twice
        colours = colours + march.background_transmittance[..., None]
    if case == "fillw":
        colours = march.opacity[..., None].expand(-1, -1, 3)
    assert_close(march.weights, stored[f"integ_{case}_weights"][..., 0], **near(dtype, 1e-4))
    assert_close(colours, stored[f"integ_{case}_rgb"], **near(dtype, 1e-4))
    if case != "noise":
        assert_close((march.weights * distances).sum(dim=-1), stored[f"integ_{case}_depth"][..., 0], **near(dtype, 1e-4))


@PRECISIONS
def test_the_distribution_is_inverted_as_in_the_reference(dtype: torch.dtype) -> None:
    stored = io(dtype)
    bins, w = stored["pdf_bins"], stored["pdf_weights"]
    assert_close(inverse_cdf(bins, w, stored["pdf_u"], right=False), stored["pdf_rand"], **near(dtype, 1e-4))
    steps = torch.linspace(0.0, 1.0, 8, dtype=dtype).expand(9, 8)
    assert_close(inverse_cdf(bins, w, steps, right=False), stored["pdf_det"], **near(dtype, 1e-4))


def test_rays_are_those_of_the_reference() -> None:
    stored = io(SINGLE)
    frontal = camera(torch.tensor([[math.pi / 2, math.pi / 2]]))
    _, directions = rays_from_camera(frontal, 5, 5, pixels="corners")
    assert_close(directions, stored["rays5_dirs_cam"], atol=1e-6, rtol=0)  # the frontal camera's axes are the world's
    distances = stored["rays5_z_vals"][..., 0]
    assert_close(stored["rays5_points_cam"], directions[:, :, None] * distances[..., None], atol=1e-6, rtol=0)
    ends = float(distances[0, 0, 0]), float(distances[0, 0, -1])
    assert_close(jittered_distances(*ends, 4, torch.full((1, 25, 4), 0.5)), distances, atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------------ whole passes


@PRECISIONS
def test_forward_reproduces_every_stage_of_the_reference(dtype: torch.dtype) -> None:
    stored = io(dtype)
    backbone = model(dtype)
    scene = rendered(backbone, "fwd", dtype, stored["fwd_pitch_yaw"], noise=CONFIG["noise"])
    coarse = scene.samples.coarse
    assert_close(scene.samples.distances[..., :coarse] / WORLD_UNITS, stored["fwd_coarse_z"][..., 0], **near(dtype, 1e-5))
    assert_close(scene.samples.raw[..., :coarse], stored["fwd_coarse_rgb_sigma"][..., 3], atol=near(dtype, 1e-2)["atol"], rtol=1e-3)
    assert_close(scene.distances / WORLD_UNITS, stored["fwd_all_z"][..., 0], **near(dtype, 1e-4))
    raw = scene.samples.raw.gather(-1, scene.samples.distances.argsort(dim=-1))
    # in float32 a fine sample moves by some 1e-6, and the raw output, which has slopes of 1e4, with it
    assert_close(raw, stored["fwd_all_rgb_sigma"][..., 3], atol=1e-8 if dtype == DOUBLE else 0.3, rtol=1e-8 if dtype == DOUBLE else 1e-3)
    assert_close(scene.weights, stored["fwd_weights"][..., 0], **near(dtype, 1e-3))
    assert_close(scene.image, stored["fwd_pixels"], **near(dtype, 1e-3))
    assert_close((scene.image.flatten(2).transpose(1, 2) + 1) / 2, stored["fwd_rgb01"], **near(dtype, 1e-3))
    assert_close(scene.depth.flatten(1) / WORLD_UNITS, stored["fwd_depth"][..., 0], **near(dtype, 1e-3))


def test_coarse_weights_are_those_of_the_reference() -> None:
    stored = io(DOUBLE)
    raw = stored["fwd_coarse_rgb_sigma"][..., 3] + CONFIG["noise"] * stored["fwd_draw3_randn"][..., 0]
    found, _ = published_weights(density_of(raw, "relu"), stored["fwd_coarse_z"][..., 0])
    assert_close(found, stored["fwd_coarse_weights"][..., 0], atol=1e-8, rtol=0)
    fine = resampled_distances(stored["fwd_coarse_z"][..., 0], found, stored["fwd_draw4_rand"].reshape(2, 256, 6))
    union = torch.cat([fine, stored["fwd_coarse_z"][..., 0]], dim=-1).sort(dim=-1).values
    assert_close(union, stored["fwd_all_z"][..., 0], atol=1e-8, rtol=0)


def test_gradients_reproduce_the_reference() -> None:
    stored = io(DOUBLE)
    backbone = model(DOUBLE)
    loss = rendered(backbone, "fwd", DOUBLE, stored["fwd_pitch_yaw"], noise=CONFIG["noise"]).image.square().mean()
    assert_close(loss, stored["fwd_loss_meansq"], atol=1e-8, rtol=0)
    loss.backward()
    named = dict(backbone.generator.named_parameters())
    for name, parameter in named.items():
        assert parameter.grad is not None
        assert_close(parameter.grad.norm(), stored[f"fwd_gradnorm/{name}"], atol=1e-8, rtol=1e-8)
    whole = [name for name in stored if name.startswith("fwd_grad/")]
    assert len(whole) == 3
    for name in whole:
        assert_close(named[name.removeprefix("fwd_grad/")].grad, stored[name], atol=1e-8, rtol=1e-8)


@PRECISIONS
def test_forward_without_fine_samples(dtype: torch.dtype) -> None:
    stored = io(dtype)
    backbone = model(dtype, samples_fine=0)
    scene = rendered(backbone, "nohier", dtype, stored["nohier_pitch_yaw"], noise=CONFIG["noise"])
    assert_close(scene.image, stored["nohier_pixels"], **near(dtype, 1e-3))
    assert_close(scene.depth.flatten(1) / WORLD_UNITS, stored["nohier_depth"][..., 0], **near(dtype, 1e-3))


@PRECISIONS
@pytest.mark.parametrize(("call", "truncation", "lock"), [("staged", 0.7, False), ("staged_lock", 0.5, True)])
def test_evaluation_with_truncation(dtype: torch.dtype, call: str, truncation: float, lock: bool) -> None:
    stored = io(dtype)
    backbone = model(dtype, last_back=not lock, lock_view_dependence=lock)
    pitch_yaw = torch.tensor([[CONFIG["v_mean"], CONFIG["h_mean"] + 0.3]], dtype=dtype).expand(2, 2)
    scene = rendered(backbone, call, dtype, pitch_yaw, truncation)
    assert_close(scene.image, stored[f"{call}_pixels"], **near(dtype, 1e-3))
    assert_close(scene.depth[:, 0] / WORLD_UNITS, stored[f"{call}_depth"], **near(dtype, 1e-3))


def test_the_centre_of_truncation_is_the_mean_of_the_mapping() -> None:
    stored, backbone = io(DOUBLE), model(DOUBLE)
    frequencies, phases = backbone.generator.map(stored["avg_z"])
    assert_close(frequencies.mean(dim=0, keepdim=True), stored["avg_frequencies"], atol=1e-8, rtol=0)
    assert_close(phases.mean(dim=0, keepdim=True), stored["avg_phase_shifts"], atol=1e-8, rtol=0)


# ------------------------------------------------------------------------------------------------ marching by hand


def random_rays() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    density = torch.rand(2, 5, 7, generator=draw, dtype=DOUBLE).sub_(0.4).clamp_min(0.0) * 20
    return density, torch.rand(2, 5, 7, generator=draw, dtype=DOUBLE).sort(dim=-1).values


@pytest.mark.parametrize("last_back", [False, True])
def test_march_is_the_running_product_in_value_and_gradient(last_back: bool) -> None:
    density, distances = random_rays()
    density.requires_grad_(True)
    found = march_samples(density, distances, 1.0, last_back=last_back)
    expected, total = published_weights(density, distances, last_back=last_back)
    assert_close(found.weights, expected, atol=1e-8, rtol=0)
    assert_close(found.background_transmittance, 1 - total, atol=1e-8, rtol=0)
    # the last sample's slope is 1e10 exp(-1e10 density): compared where it is not about to explode
    slopes = [torch.autograd.grad((w * distances).sum(), density)[0] for w in (found.weights, expected)]
    assert_close(slopes[0][..., :-1], slopes[1][..., :-1], atol=1e-7, rtol=1e-6)


def test_march_is_differentiable_and_finite_on_empty_and_full_rays() -> None:
    distances = torch.linspace(0.5, 1.5, 5, dtype=DOUBLE).expand(1, 3, 5)
    density = torch.stack([torch.zeros(5), torch.full((5,), 1e6), torch.ones(5)]).double()[None].requires_grad_(True)
    march = march_samples(density, distances, 1.6)
    assert march.opacity[0].tolist() == pytest.approx([0.0, 1.0, 1.0])
    (slope,) = torch.autograd.grad(march.weights.square().sum(), density)
    assert bool(slope.isfinite().all())
    ending = torch.rand(1, 2, 5, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda d: march_samples(d, distances[:, :2], 1.6, infinite=False).weights, ending)


def test_an_end_at_far_leaves_the_rest_to_the_background() -> None:
    density, distances = torch.tensor([[[2.0, 2.0]]]), torch.tensor([[[1.0, 1.5]]])
    march = march_samples(density, distances, 2.0, infinite=False)
    assert_close(march.background_transmittance, torch.tensor([[math.exp(-2.0)]]))
    assert_close(march.opacity, torch.tensor([[1 - math.exp(-2.0)]]))
    beyond = march_samples(density, distances, 1.2, infinite=False)  # jitter may move the last sample beyond far
    assert beyond.edges[0, 0].tolist() == [1.0, 1.5, 1.5]
    assert float(beyond.alpha[0, 0, 1]) == 0.0
