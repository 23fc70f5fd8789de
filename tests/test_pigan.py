"""pi-GAN as a backbone: units, options, progress of a training, centre of truncation, critic, backgrounds."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from contract.small_backbones import PIGAN, build
from priorzoo.backbones.base import Execution, Latents, Progress, Sampling
from priorzoo.backbones.eg3d import EG3D
from priorzoo.backbones.pigan import PiGAN
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.scene import Scene
from priorzoo.core.streams import Streams, fixed_streams
from torch.testing import assert_close

STILL = Sampling("deterministic")
STREAMS = fixed_streams(0, 2)
FRONT = Camera.looking_at_origin(torch.tensor([0.2, -0.1]), torch.tensor([0.1, 0.0]))


def pigan(**options: Any) -> PiGAN:
    made = build("pigan", {**PIGAN, **options})
    assert isinstance(made, PiGAN)
    return made


def rendered(backbone: PiGAN, *needs: str, sampling: Sampling = STILL, streams: Streams = STREAMS) -> Scene:
    latents = backbone.prepare(backbone.draw(len(streams.indices), streams), None)
    return backbone.render(latents, FRONT[: len(streams.indices)], frozenset(needs), streams=streams, sampling=sampling)


def test_lengths_are_world_units_outside() -> None:
    scene = rendered(pigan(), "depth", "weights", "field", "edges")
    assert float(scene.distances.min()) >= 0.8 * 2.7 - 1e-4 and float(scene.edges.max()) <= 1.2 * 2.7 + 1e-4
    assert_close(scene.rays.origins.norm(dim=-1), torch.full((2, 64), 2.7))
    # opacity is 1 - exp(-density length) with both in world units, as for every other field of this kind
    points = scene.rays.origins[:, :, None] + scene.rays.directions[:, :, None] * scene.distances[..., None]
    density = scene.field(points.flatten(1, 2)).value.view_as(scene.distances)
    expected = 1.0 - torch.exp(-density[..., :-1] * scene.distances.diff(dim=-1))
    assert_close(scene.alpha[..., :-1], expected, atol=1e-4, rtol=1e-3)
    assert scene.field.extent == pytest.approx(0.15 * 2.7)


def test_raw_output_of_the_samples_is_the_fields() -> None:
    scene = rendered(pigan(), "samples", "field")
    assert scene.samples.coarse == 6 and scene.samples.raw.shape[-1] == 12
    points = scene.rays.origins[:, :, None] + scene.rays.directions[:, :, None] * scene.samples.distances[..., None]
    assert_close(scene.field(points.flatten(1, 2)).raw.view_as(scene.samples.raw), scene.samples.raw, atol=1e-3, rtol=1e-3)


def test_colours_change_with_the_direction_unless_it_is_locked() -> None:
    for locked in (False, True):
        backbone = pigan(lock_view_dependence=locked)
        latents = backbone.prepare(backbone.draw(2, STREAMS), None)
        scene = backbone.render(latents, FRONT, frozenset({"image_raw", "weights"}), streams=STREAMS, sampling=STILL)
        points = scene.rays.origins[:, :, None] + scene.rays.directions[:, :, None] * scene.distances[..., None]
        seen = scene.rays.directions[:, :, None].expand_as(points).flatten(1, 2)
        for directions, same in ((seen, not locked), (None, locked)):
            colours = scene.field(points.flatten(1, 2), directions).colour.view(*points.shape)  # type: ignore[call-arg]
            image = ((colours + 1) * scene.weights[..., None]).sum(dim=2).transpose(1, 2).reshape(2, 3, 8, 8) - 1
            assert torch.allclose(image, scene.image_raw, atol=1e-4) == same


def test_published_depth_is_not_divided_by_opacity() -> None:
    scene, other = rendered(pigan(depth="as_published"), "depth", "opacity"), rendered(pigan(), "depth", "opacity")
    assert_close(scene.depth, (scene.weights * scene.distances).sum(dim=-1).view(2, 1, 8, 8))
    full = other.opacity > 1e-3
    assert_close(scene.depth[full], (other.depth * other.opacity)[full], atol=1e-4, rtol=1e-4)


def test_white_shows_where_nothing_is() -> None:
    black, white = rendered(pigan(), "image_raw", "opacity"), rendered(pigan(white_back=True), "image_raw")
    assert_close(white.image_raw, black.image_raw + 2 * (1 - black.opacity), atol=1e-5, rtol=0)
    last = rendered(pigan(last_back=True), "image_raw", "opacity")
    assert_close(last.opacity, torch.ones_like(last.opacity))


def test_a_colour_stands_behind() -> None:
    backbone = pigan(background={"name": "colour", "rgb": [1.0, 1.0, 1.0]})
    assert_close(rendered(backbone, "image_raw").image_raw, rendered(pigan(white_back=True), "image_raw").image_raw, atol=1e-5, rtol=0)


def test_checkpointed_rendering_has_the_same_gradient() -> None:
    gradients = []
    for checkpoint in (False, True):
        backbone = pigan()
        backbone.set_execution(Execution(checkpoint_rendering=checkpoint))
        loss = rendered(backbone, "image_raw").image_raw.square().mean()
        gradients.append(torch.autograd.grad(loss, list(backbone.generator.parameters())))
    for one, two in zip(*gradients, strict=True):
        assert_close(one, two)
    with pytest.raises(PriorzooError, match=r"training.compile: backbone pigan cannot do it; set it to false"):
        pigan().set_execution(Execution(compile=True))


# ------------------------------------------------------------------------------------------------ progress


def test_progress_fades_a_stage_in_and_noise_out() -> None:
    backbone = pigan(fade_steps=100, density_noise=2.0, density_noise_steps=50)
    assert (backbone.alpha, backbone.noise_deviation) == (1.0, 0.0)
    for steps, began, alpha, noise in ((0, 0, 0.0, 2.0), (25, 0, 0.25, 1.0), (100, 0, 1.0, 0.0), (500, 0, 1.0, 0.0), (500, 470, 0.3, 0.0)):
        backbone.set_progress(Progress(images=steps * 8, steps=steps, stage_images=began * 8, stage_steps=began))
        assert (backbone.alpha, backbone.noise_deviation) == (pytest.approx(alpha), noise)
    steady = pigan(fade_steps=0, density_noise_steps=0)
    steady.set_progress(Progress())
    assert (steady.alpha, steady.noise_deviation) == (1.0, 0.0)


def test_noise_moves_weights_in_training_only_and_leaves_other_draws_alone() -> None:
    backbone = pigan(density_noise=5.0)
    quiet = rendered(backbone, "weights", sampling=Sampling())
    still = rendered(backbone, "weights")
    backbone.set_progress(Progress())
    noisy = rendered(backbone, "weights", sampling=Sampling())
    assert torch.equal(noisy.samples.distances[..., :6], quiet.samples.distances[..., :6])
    assert torch.equal(noisy.samples.raw[..., :6], quiet.samples.raw[..., :6])
    assert not torch.allclose(noisy.weights, quiet.weights, atol=1e-2)
    assert torch.equal(rendered(backbone, "weights").weights, still.weights)


def test_alpha_reaches_the_critic() -> None:
    backbone = pigan(fade_steps=10)
    image = {"image": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
    grown = backbone.criticise(image, None)
    backbone.set_progress(Progress(steps=3))
    assert not torch.allclose(backbone.criticise(image, None), grown)
    assert_close(backbone.criticise(image, None), backbone.discriminator(image["image"], 0.3).logits)


def test_other_backbones_have_neither_progress_nor_camera_law() -> None:
    other = build("eg3d", {"z_dim": 4, "w_dim": 4, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 4,
                           "superresolution": "none", "feature_channels": 3, "neural_resolution": 8, "image_resolution": 8,
                           "discriminator_channel_base": 64, "discriminator_channel_max": 4})  # fmt: skip
    assert isinstance(other, EG3D)
    other.set_progress(Progress(steps=5))
    with pytest.raises(PriorzooError, match="backbone eg3d has no camera law: labels are needed"):
        other.draw_cameras(2, STREAMS)
    image = other.critic_input(torch.zeros(2, 3, 8, 8))
    assert_close(other.inspect(image, None), {"logits": other.criticise(image, None)})


# ------------------------------------------------------------------------------------------------ truncation


def test_the_centre_is_seeded_stored_and_pulled_towards() -> None:
    one, two = pigan(), pigan()
    one.generate_averages(300, seed=1)
    two.generate_averages(300, seed=1)
    assert torch.equal(one.generator.average_frequencies, two.generator.average_frequencies)
    two.generate_averages(300, seed=2)
    assert not torch.equal(one.generator.average_frequencies, two.generator.average_frequencies)
    assert {"average_frequencies", "average_phases"} <= one.generator.state_dict().keys()
    z = torch.randn(300, 4, generator=torch.Generator().manual_seed(1))
    mean = one.generator.siren.mapping_network(z)[0].mean(dim=0)
    assert_close(one.generator.average_frequencies, mean, atol=1e-5, rtol=0)
    drawn = one.draw(2, STREAMS)
    whole, half = one.prepare(drawn, None), one.prepare(drawn, None, truncation=0.5)
    assert_close(half["frequencies"], 0.5 * (whole["frequencies"] + one.generator.average_frequencies))
    assert_close(half["phases"], 0.5 * (whole["phases"] + one.generator.average_phases))


def test_training_keeps_a_running_centre() -> None:
    backbone = pigan()
    for step in range(40):
        backbone.prepare(backbone.draw(64, fixed_streams(step, 64)), None, update_averages=True)
    running = backbone.generator.average_frequencies.clone()
    backbone.generate_averages(2000)
    share = 1 - 0.998**40
    assert_close(running / share, backbone.generator.average_frequencies, atol=0.05, rtol=0.1)


# ------------------------------------------------------------------------------------------------ critic


def test_the_critic_tells_latent_and_pose_where_it_encodes() -> None:
    image = {"image": torch.zeros(2, 3, 8, 8)}
    told = pigan(discriminator="progressive_encoder").inspect(image, None)
    assert {k: v.shape for k, v in told.items()} == {"logits": (2,), "latent": (2, 4), "pose": (2, 2)}
    assert set(pigan(discriminator="strided").inspect(image, None)) == {"logits"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert all(v.dtype == torch.float32 for v in pigan().inspect(image, None).values())


def test_real_images_are_reduced_by_the_rule() -> None:
    real = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 3, 8, 8)
    nearest = pigan(reduction="nearest").critic_input(real, 4)["image"]
    assert torch.equal(nearest, real[:, :, ::2, ::2])
    smooth = pigan(reduction="antialiased").critic_input(real, 4)["image"]
    assert float(smooth.mean()) == pytest.approx(float(real.mean()), abs=1e-3)
    assert torch.equal(pigan().critic_input(real)["image"], real)


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"hiden": 4}, "backbone pigan: unknown option 'hiden', did you mean 'hidden'?"),
        ({"density": "rely"}, "density must be one of relu, softplus; got 'rely', did you mean 'relu'?"),
        ({"near": 1.2, "far": 1.0}, "near and far must satisfy 0 <= near < far; got 1.2 and 1.0"),
        ({"samples_coarse": 2}, "samples_coarse must be at least 3, got 2"),
        ({"samples_coarse": 1, "samples_fine": 0}, "samples_coarse must be at least 2, got 1"),
        ({"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
        ({"neural_resolution": 12}, "neural_resolution must be a power of two of at least 4, got 12"),
        ({"neural_resolution": 512}, "neural_resolution 512 is more than discriminator ccs_encoder takes, 256"),
        ({"discriminator": "css_encoder"}, "discriminator must be one of ccs, ccs_encoder, strided, progressive, progressive_encoder"),
        ({"camera_mode": "gaussian"}, "camera_mode must be one of uniform, normal, hybrid"),
        ({"density_noise": -1.0}, "density_noise must be a number >= 0, got -1.0"),
        ({"extent": 0.0}, "extent must be a number > 0, got 0.0"),
        ({"white_back": True, "background": {"name": "colour"}}, "white_back leaves nothing to see of background colour"),
        ({"last_back": True, "background": {"name": "sphere"}}, "last_back leaves nothing to see of background sphere"),
        ({"density": "softplus", "background": {"name": "sphere"}}, "softplus makes the last sample opaque and hides background sphere"),
    ],
)  # fmt: skip
def test_bad_options_are_refused_before_anything_is_built(options: dict[str, Any], text: str) -> None:
    for build_it in (PiGAN, PiGAN.provides):
        with pytest.raises(PriorzooError, match=re.escape(text)):
            build_it(**options)


def test_rules_can_be_changed_afterwards_and_are_checked() -> None:
    backbone = pigan()
    backbone.set_execution(Execution(checkpoint_rendering=True))
    backbone.set_options(near=0.9, far=1.1, white_back=True)
    assert (backbone.rendering.near, backbone.rendering.white_back, backbone.rendering.checkpoint) == (0.9, True, True)
    with pytest.raises(PriorzooError, match="near and far"):
        backbone.set_options(near=2.0)


def test_what_it_cannot_do_is_said() -> None:
    backbone = pigan()
    with pytest.raises(PriorzooError, match="backbone pigan does not render surface_depth; it renders alpha"):
        rendered(backbone, "surface_depth")
    with pytest.raises(PriorzooError, match="draw: 3 latents were asked for"):
        backbone.draw(3, STREAMS)
    with pytest.raises(PriorzooError, match=r"sampling: mode 'x' is not one of random, deterministic"):
        rendered(backbone, "depth", sampling=Sampling("x"))


def test_defaults_are_the_published_celeba_model() -> None:
    with torch.device("meta"):
        backbone = PiGAN()
    assert sum(p.numel() for p in backbone.generator.parameters()) == 1_910_788
    assert sum(p.numel() for p in backbone.discriminator.parameters()) == 13_291_075
    law = backbone.options.camera_law()
    assert (law.mode, law.yaw_deviation, law.pitch_deviation, law.field_of_view) == ("normal", 0.3, 0.155, 12.0)
    assert law.yaw_mean == law.pitch_mean == math.pi / 2
    assert isinstance(backbone.draw(2, STREAMS), Latents)
