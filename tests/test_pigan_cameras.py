"""pi-GAN's cameras: positions and axes of the reference, angles there and back, each law by hand and by its statistics."""

from __future__ import annotations

import math

import pytest
import torch
from pigan_golden import io
from priorzoo.backbones.pigan import PiGAN
from priorzoo.backbones.pigan.cameras import (
    MODES,
    CameraLaw,
    normal_angles,
    spherical_pitch,
    truncated_angles,
    uniform_angles,
)  # fmt: skip
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.streams import Streams, fixed_streams
from torch.testing import assert_close

MANY = fixed_streams(0, 4000)
YAW, PITCH = (math.pi / 2, 0.3), (math.pi / 2, 0.155)


def test_positions_and_axes_of_the_reference() -> None:
    stored = io(torch.float64)
    made = Camera.from_pitch_yaw(*stored["cam_pitch_yaw"].unbind(dim=1), radius=1.0)
    assert_close(made.position, stored["cam_origin"], atol=1e-8, rtol=0)
    turned = stored["cam2world"].clone()
    turned[:, :, 1:3] *= -1.0  # its axes are right, up, back; ours right, down, forward
    assert_close(made.cam2world, turned, atol=1e-8, rtol=0)
    assert_close(made.pitch_yaw(), stored["cam_pitch_yaw"], atol=1e-8, rtol=0)


@pytest.mark.parametrize("mode", ["uniform", "gaussian", "spherical_uniform", "None"])
def test_laws_reproduce_the_reference(mode: str) -> None:
    stored = io(torch.float32)
    pitch, yaw = stored[f"campos_{mode}_pitch"], stored[f"campos_{mode}_yaw"]
    position = Camera.from_pitch_yaw(pitch[:, 0], yaw[:, 0], radius=1.0).position
    assert_close(position, stored[f"campos_{mode}_xyz"], atol=1e-6, rtol=0)
    if mode == "None":
        assert len(set(pitch[:, 0].tolist())) == len(set(yaw[:, 0].tolist())) == 1
        return
    kind = "randn" if mode == "gaussian" else "rand"
    draws = [stored[f"campos_{mode}_draw{i}_{kind}"] for i in range(2)]
    # means and deviations are not stored: two of six draws give them, the others must follow
    law = {"uniform": uniform_angles, "gaussian": normal_angles, "spherical_uniform": uniform_angles}[mode]
    scale = 2.0 if kind == "rand" else 1.0
    deviation = float((yaw[1] - yaw[0]) / (draws[0][1] - draws[0][0])) / scale
    mean = float(yaw[0] - law(0.0, deviation, draws[0][0]))
    assert_close(law(mean, deviation, draws[0]), yaw, atol=1e-5, rtol=0)
    pitches = {"uniform": uniform_angles, "gaussian": normal_angles, "spherical_uniform": spherical_pitch}[mode]
    heights = (1 - pitch.cos()) / 2 * math.pi if mode == "spherical_uniform" else pitch
    deviation = float((heights[1] - heights[0]) / (draws[1][1] - draws[1][0])) / scale
    mean = float(heights[0] - law(0.0, deviation, draws[1][0]))
    assert_close(pitches(mean, deviation, draws[1]).clamp(1e-5, math.pi - 1e-5), pitch, atol=1e-4, rtol=0)


def test_angles_by_hand() -> None:
    quarter = torch.tensor([math.pi / 2])
    for turn, axis in ((0.0, 0), (math.pi / 2, 2), (math.pi, 0), (-math.pi / 2, 2)):
        position = Camera.from_pitch_yaw(quarter, torch.tensor([turn]), radius=1.0).position[0]
        assert abs(float(position[axis])) == pytest.approx(1.0)
    above = Camera.from_pitch_yaw(torch.tensor([0.5]), quarter, radius=1.0).position[0]
    assert float(above[1]) == pytest.approx(math.cos(0.5))
    ours = Camera.looking_at_origin(torch.tensor([0.2]), torch.tensor([0.1]))
    theirs = Camera.from_pitch_yaw(torch.tensor([math.pi / 2 - 0.1]), torch.tensor([math.pi / 2 - 0.2]))
    assert_close(ours.cam2world, theirs.cam2world, atol=1e-6, rtol=0)


def test_pitch_and_yaw_there_and_back_all_around() -> None:
    draw = torch.Generator().manual_seed(0)
    pitch = torch.rand(200, generator=draw, dtype=torch.float64) * 3 + 0.07
    yaw = (torch.rand(200, generator=draw, dtype=torch.float64) - 0.25) * 2 * math.pi
    assert_close(Camera.from_pitch_yaw(pitch, yaw).pitch_yaw(), torch.stack([pitch, yaw], dim=1))


@pytest.mark.parametrize(
    ("mode", "spread", "reach"),
    [("uniform", 1 / math.sqrt(3), 1.0), ("normal", 1.0, math.inf), ("truncated_gaussian", 0.8796, 2.0), ("fixed", 0.0, 0.0)],
)
def test_mean_spread_and_reach_of_each_law(mode: str, spread: float, reach: float) -> None:
    pitch, yaw = CameraLaw(mode).angles(MANY)
    for angle, (mean, deviation) in ((yaw, YAW), (pitch, PITCH)):
        assert float(angle.mean()) == pytest.approx(mean, abs=4 * deviation / math.sqrt(4000))
        assert float(angle.std()) == pytest.approx(spread * deviation, rel=0.05, abs=1e-6)
        assert float((angle - mean).abs().max()) <= reach * deviation + 1e-6
    assert mode == "fixed" or not torch.allclose((pitch - PITCH[0]) / PITCH[1], (yaw - YAW[0]) / YAW[1], atol=1e-2)


def test_hybrid_tosses_one_coin_for_the_batch() -> None:
    law, reaches = CameraLaw("hybrid", yaw_deviation=0.1), []
    for step in range(12):
        _, yaw = law.angles(Streams(0, step, tuple(range(300))))
        reaches.append(float((yaw - math.pi / 2).abs().max()) / 0.1)
    uniform = [r for r in reaches if r <= 2.0]
    assert 0 < len(uniform) < 12 and all(r > 1.9 for r in uniform)
    alone = law.angles(Streams(0, 3, (7,)))
    together = law.angles(Streams(0, 3, tuple(range(300))))
    assert all(bool(a[0] == t[7]) for a, t in zip(alone, together, strict=True))


def test_spherical_uniform_fills_the_sphere_evenly() -> None:
    law = CameraLaw("spherical_uniform", math.pi / 2, math.pi / 2, math.pi / 2, math.pi)
    positions = law.draw(MANY).position / 2.7
    assert_close(positions.mean(dim=0), torch.zeros(3), atol=0.04, rtol=0)
    assert_close(positions.square().mean(dim=0), torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_truncation_takes_the_first_that_fits_and_else_the_first() -> None:
    candidates = torch.tensor([[0.5, 1.0, 1.0, 1.0], [-3.0, 2.1, 1.5, 0.0], [3.0, 4.0, 5.0, 6.0]])
    assert truncated_angles(1.0, 2.0, candidates).tolist() == [2.0, 4.0, 7.0]


def test_pitch_stays_off_the_poles() -> None:
    pitch, _ = CameraLaw("normal", pitch_deviation=100.0).angles(MANY)
    assert float(pitch.min()) == pytest.approx(1e-5) and float(pitch.max()) < math.pi
    assert bool(CameraLaw("normal", pitch_deviation=100.0).draw(MANY).cam2world.isfinite().all())


@pytest.mark.parametrize("mode", MODES)
def test_the_backbone_draws_by_its_options(mode: str) -> None:
    small = {"z_dim": 4, "hidden": 4, "layers": 1, "discriminator_channel_max": 2}
    backbone = PiGAN(**small, camera_mode=mode, field_of_view=30.0)
    streams = Streams(0, 0, (0, 1, 2))
    drawn = backbone.draw_cameras(3, streams)
    assert_close(drawn.position.norm(dim=-1), torch.full((3,), 2.7))
    assert float(drawn.intrinsics[0, 0, 0]) == pytest.approx(0.5 / math.tan(math.radians(15)))
    assert torch.equal(backbone.draw_cameras(1, streams.take([1])).cam2world[0], drawn.cam2world[1])
    with pytest.raises(PriorzooError, match="2 cameras were asked for, the streams are those of 3 samples"):
        backbone.draw_cameras(2, streams)


def test_a_law_is_refused_by_name() -> None:
    with pytest.raises(PriorzooError, match=r"camera_mode must be one of .* did you mean 'normal'"):
        CameraLaw("normel")
    with pytest.raises(PriorzooError, match="field_of_view must be a number > 0 and < 180, got 180"):
        CameraLaw(field_of_view=180)
    with pytest.raises(PriorzooError, match="yaw_deviation must be a number >= 0, got -1"):
        CameraLaw(yaw_deviation=-1)
