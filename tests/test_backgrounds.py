"""Backgrounds: BallGAN's sphere against its reference values and by pencil, a plain colour, refusals."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from priorzoo.backbones.backgrounds.colour import Colour
from priorzoo.backbones.backgrounds.sphere import Sphere, angle_code, sphere_angles, sphere_hit
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.registry import BACKGROUNDS
from priorzoo.core.streams import fixed_streams
from priorzoo.rendering.rays import rays_from_camera
from torch import Tensor
from torch.testing import assert_close

GOLDEN = {k: torch.from_numpy(v) for k, v in np.load(Path(__file__).parent / "golden" / "ballgan" / "sphere.npz").items()}
ORIGINS, DIRECTIONS = GOLDEN["sphere.ray_o"], GOLDEN["sphere.ray_d"]


def weights(prefix: str) -> dict[str, Tensor]:
    """Stored tensors below a prefix; the unused filters of the published files are left out."""
    start = f"weights.{prefix}."
    return {k.removeprefix(start): v for k, v in GOLDEN.items() if k.startswith(start) and not k.endswith("resample_filter")}


def published(network: str) -> Sphere:
    sphere = Sphere(channels=32, z_dim=32, w_dim=32, network=network)
    sphere.network.load_state_dict(weights("bgnet_ver1" if network == "modulated" else "bgnet_ver0"))
    if sphere.mapping is not None:
        sphere.mapping.load_state_dict(weights("bg_mapping"))
    return sphere


def test_where_rays_leave_the_sphere() -> None:
    distance, points = sphere_hit(ORIGINS, DIRECTIONS, float(GOLDEN["sphere.R"]))
    assert_close(distance, GOLDEN["sphere.depth_bg"], rtol=0.0, atol=1e-5)
    assert_close(points.norm(dim=-1), torch.full_like(distance, 3.0), rtol=0.0, atol=1e-5)
    assert_close(sphere_angles(points, 3.0), GOLDEN["sphere.theta_phi"], rtol=0.0, atol=1e-5)


def test_angles_of_axes_and_corners() -> None:
    assert_close(sphere_angles(GOLDEN["sphere.oct_points"], 3.0), GOLDEN["sphere.oct_theta_phi"], rtol=0.0, atol=1e-5)
    poles = torch.tensor([[0.0, 3.0, 0.0], [0.0, -3.0000002, 0.0]])
    assert sphere_angles(poles, 3.0)[:, 0].tolist() == [0.0, pytest.approx(math.pi)]


def test_code_mapping_and_both_networks() -> None:
    code = angle_code(GOLDEN["sphere.theta_phi"])
    assert_close(code[:, :32], GOLDEN["bgnet.pe_first32"], rtol=0.0, atol=1e-4)
    sphere, z = published("modulated"), {"z_background": GOLDEN["mapping.z_bg"]}
    assert_close(sphere.prepare(z)["w_background"], GOLDEN["mapping.ws"][:, 0], rtol=0.0, atol=1e-5)
    assert_close(sphere.prepare(z, truncation=0.7)["w_background"], GOLDEN["mapping.ws_psi07"][:, 0], rtol=0.0, atol=1e-5)
    w = GOLDEN["mapping.ws"][:, 0].clone().requires_grad_()
    features, distance = sphere({"w_background": w}, ORIGINS, DIRECTIONS)
    assert_close(features.transpose(1, 2), GOLDEN["bgnet.feat_ver1"], rtol=0.0, atol=1e-4)
    assert_close(distance, GOLDEN["sphere.depth_bg"], rtol=0.0, atol=1e-5)
    (gradient,) = torch.autograd.grad((features.transpose(1, 2) * torch.linspace(-1, 1, 32)).mean(), w)
    # One w drives all five layers here; the published code holds five copies.
    assert_close(gradient, GOLDEN["bgnet.grad_ws_ver1"].sum(dim=1), rtol=1e-4, atol=1e-7)
    concatenated = published("concatenated")
    features, _ = concatenated(concatenated.prepare(z), ORIGINS, DIRECTIONS)
    assert_close(features.transpose(1, 2), GOLDEN["bgnet.feat_ver0"], rtol=0.0, atol=1e-4)


def test_any_number_of_rays_and_gradients_everywhere() -> None:
    sphere = Sphere(channels=3, z_dim=8, w_dim=8, hidden=8, mapping_layers=2).double()
    camera = Camera.looking_at_origin(torch.tensor([0.3], dtype=torch.float64), torch.tensor([0.1], dtype=torch.float64))
    origins, directions = rays_from_camera(camera, 3, 5)
    latents = sphere.prepare({"z_background": torch.randn(1, 8, dtype=torch.float64)})
    features, _ = sphere(latents, origins, directions)
    assert features.shape == (1, 3, 15) and features.dtype == torch.float64
    features.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in sphere.parameters())
    assert bool((features > -0.0011).all()) and bool((features < 1.0011).all())


def test_latents_come_from_a_stream_of_their_own() -> None:
    sphere = Sphere(channels=3, z_dim=8, w_dim=8, hidden=8)
    streams = fixed_streams(0, 3)
    drawn = sphere.draw(3, streams)["z_background"]
    assert torch.equal(drawn, sphere.draw(3, fixed_streams(0, 3))["z_background"])
    assert not torch.equal(drawn, streams("latents").normal(8))


def test_a_colour_is_the_same_everywhere() -> None:
    white, none = Colour(channels=32)({}, ORIGINS, DIRECTIONS)
    assert none is None and bool((white == 1.0).all()) and white.shape == (2, 32, 256)


@pytest.mark.parametrize(("name", "options", "message"), [
    ("sphere", {"radius": -1.0}, "radius must be a number > 0"),
    ("sphere", {"network": "ver1"}, "network must be one of modulated, concatenated; got 'ver1'"),
    ("sphere", {"hidden": 0}, "hidden must be a whole number >= 1, got 0"),
    ("colour", {"rgb": (2.0, 0.0, 0.0)}, r"rgb must be three numbers in \[0, 1\], got \[2.0, 0.0, 0.0\]"),
    ("colour", {"rgb": (1.0,)}, "rgb must be three numbers"),
])  # fmt: skip
def test_bad_options_are_named(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorzooError, match=message):
        BACKGROUNDS.create(name, channels=3, **options)


def test_a_camera_outside_is_refused() -> None:
    with pytest.raises(PriorzooError, match=r"a camera is 2.7 world units from the origin, outside the radius 2"):
        sphere_hit(ORIGINS, DIRECTIONS, 2.0)
