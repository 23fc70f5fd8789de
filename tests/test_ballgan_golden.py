"""BallGAN's compositing and its whole rendering reproduce the published code's outputs; the sphere behind EG3D is real."""

from __future__ import annotations

import pytest
import torch
from contract.small_backbones import EG3D as SMALL
from contract.small_backbones import SPHERE, build
from priorzoo.backbones.eg3d import EG3D, BallGAN
from priorzoo.backbones.eg3d.decoder import SplitDecoder
from priorzoo.backbones.eg3d.renderer import RenderingOptions, render_rays
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.recipe import Recipe
from priorzoo.core.streams import fixed_streams
from priorzoo.rendering.compositing import composite_intervals, expected_depth
from test_backgrounds import GOLDEN, published, weights
from torch.testing import assert_close

NONE = {**SMALL, "superresolution": "none", "feature_channels": 3}


def test_compositing_with_and_without_the_background() -> None:
    colours, raw = GOLDEN["march.colors"].permute(0, 3, 1, 2), GOLDEN["march.densities"][..., 0]
    distances, behind = GOLDEN["march.depths"][..., 0], GOLDEN["march.color_bg"].transpose(1, 2)
    features, march = composite_intervals(colours, raw, distances, background=behind)
    assert_close((features * 2 - 1).transpose(1, 2), GOLDEN["march.both.rgb"], rtol=0.0, atol=1e-5)
    assert_close(march.weights, GOLDEN["march.both.weights"][..., 0], rtol=0.0, atol=1e-5)
    assert_close(march.alpha, GOLDEN["march.both.alpha"][..., 0], rtol=0.0, atol=1e-5)
    assert_close(march.background_transmittance, GOLDEN["march.both.T_bg"][..., 0, 0], rtol=0.0, atol=1e-5)
    both = (march.weights * march.distances).sum(-1) + march.background_transmittance * GOLDEN["march.depth_bg"]
    assert_close(both, GOLDEN["march.both.depth"][..., 0], rtol=0.0, atol=1e-5)
    alone, march = composite_intervals(colours, raw, distances)
    assert_close((alone * 2 - 1).transpose(1, 2), GOLDEN["march.fg.rgb"], rtol=0.0, atol=1e-5)
    assert_close(expected_depth(march.weights, march.distances, 3.3), GOLDEN["march.fg.depth"][..., 0], rtol=0.0, atol=1e-5)
    shown = march.background_transmittance[:, None] * behind * 2 - 1
    assert_close(shown.transpose(1, 2), GOLDEN["march.bg.rgb"], rtol=0.0, atol=1e-5)


def test_the_whole_rendering() -> None:
    decoder = SplitDecoder(32, 64, 32)
    decoder.load_state_dict(weights("decoder"))
    sphere = published("modulated")
    origins, directions = GOLDEN["render.ray_o"], GOLDEN["render.ray_d"]
    features, distance = sphere({"w_background": GOLDEN["mapping.ws"][:, 0]}, origins, directions)
    result = render_rays(
        GOLDEN["render.planes"], decoder, origins, directions, RenderingOptions(coarse=12, fine=12),
        jitter=GOLDEN["render.u_stratified"][..., 0], u=GOLDEN["render.u_importance"].view(2, 64, 12), background=features,
    )  # fmt: skip
    march = result.march
    assert result.features is not None
    assert_close(result.features.transpose(1, 2), GOLDEN["render.features"], rtol=0.0, atol=1e-4)
    both = (march.weights * march.distances).sum(-1) + march.background_transmittance * distance
    assert_close(both, GOLDEN["render.depth"][..., 0], rtol=0.0, atol=1e-4)
    assert_close(march.opacity, GOLDEN["render.fg_weight_sum"][..., 0], rtol=0.0, atol=1e-5)
    assert_close(march.alpha, GOLDEN["render.alpha"][..., 0], rtol=0.0, atol=1e-5)
    assert_close(march.background_transmittance, GOLDEN["render.T_bg"][..., 0, 0], rtol=0.0, atol=1e-5)
    assert_close(result.drawn[..., 12:], GOLDEN["render.fg_depth_fine"][..., 0], rtol=0.0, atol=1e-5)
    assert_close(result.raw[..., 12:], GOLDEN["render.fg_density_fine_raw"][..., 0], rtol=0.0, atol=1e-4)


def test_a_scene_shows_both_parts_and_their_sum() -> None:
    backbone = build("ballgan", {**NONE, "background": SPHERE})
    streams, camera = fixed_streams(0, 2), Camera.looking_at_origin(torch.tensor([0.0, 0.3]), torch.zeros(2))
    latents = backbone.prepare(backbone.draw(2, streams), None)
    scene = backbone.render(latents, camera, backbone.provides(**NONE, background=SPHERE), streams=streams)
    mixed = (scene.foreground_raw + 1) + scene.background_transmittance * (scene.background_raw + 1) - 1
    assert_close(scene.image_raw, mixed, rtol=0.0, atol=1e-5)
    far = (scene.composite_depth - (1 - scene.opacity) * 5.7) / scene.opacity
    assert_close(far, scene.depth, rtol=0.0, atol=0.05 / float(scene.opacity.detach().min()))  # the sphere is 5.70 away on the axis
    assert float(scene.composite_depth.detach().min()) > float(scene.depth.detach().min())


def test_the_background_has_a_latent_of_its_own() -> None:
    backbone = build("ballgan", {**NONE, "background": SPHERE})
    camera, streams = Camera.looking_at_origin(torch.zeros(2), torch.zeros(2)), fixed_streams(0, 2)
    drawn = backbone.draw(2, streams)
    needs = frozenset({"foreground_raw", "background_raw", "depth"})
    first = backbone.render(backbone.prepare(drawn, None), camera, needs, streams=streams)
    drawn.tensors["z_background"] = drawn["z_background"].flip(0)
    second = backbone.render(backbone.prepare(drawn, None), camera, needs, streams=streams)
    assert torch.equal(first.foreground_raw, second.foreground_raw) and torch.equal(first.depth, second.depth)
    assert_close(first.background_raw, second.background_raw.flip(0))


def test_split_decoder_starts_from_one_density_everywhere() -> None:
    backbone = BallGAN(**NONE, background=SPHERE)
    streams = fixed_streams(0, 1)
    field = backbone.field(backbone.prepare(backbone.draw(1, streams), None))
    assert float(field(torch.rand(1, 50, 3) - 0.5).raw.abs().max()) == 0.0
    assert sorted(k for k in backbone.generator.state_dict() if k.startswith("decoder.")) == [
        "decoder.net.0.bias", "decoder.net.0.weight", "decoder.rgb_out.bias", "decoder.rgb_out.weight",
        "decoder.sigma_out.bias", "decoder.sigma_out.weight",
    ]  # fmt: skip


def test_two_backgrounds_at_once_are_refused() -> None:
    with pytest.raises(PriorzooError, match="white_back is a background of its own; it cannot stand with sphere"):
        EG3D(**NONE, white_back=True, background=SPHERE)


def test_backgrounds_are_part_of_a_recipe() -> None:
    plain = {"backbone": {"name": "eg3d", **NONE}, "background": {"name": "sphere", "radius": 4}, "training": {"images": 8}}
    recipe = Recipe.from_plain(plain)
    assert recipe.background.options["radius"] == 4.0 and recipe.background.options["hidden"] == 64
    assert recipe.backbone_options()["background"]["name"] == "sphere"
    assert Recipe.from_plain(recipe.to_plain()) == recipe
    with pytest.raises(PriorzooError, match=r"no such background; got 'spere'.*allowed: none, colour, sphere"):
        Recipe.from_plain({**plain, "background": {"name": "spere"}})
    with pytest.raises(PriorzooError, match="backbone analytic_sphere takes no background"):
        Recipe.from_plain({**plain, "backbone": {"name": "analytic_sphere"}})
