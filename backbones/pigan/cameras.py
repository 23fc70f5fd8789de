"""pi-GAN's camera laws: how pitch and yaw of cameras that look at the origin are drawn.

Angles are pi-GAN's: pitch from the upper pole, yaw from +x towards +z; (pi/2, pi/2) is frontal. Random numbers of the pure functions are
arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.camera import Camera, focal_from_field_of_view
from ...core.options import check_choice, check_number
from ...core.streams import Streams

MODES = ("uniform", "normal", "hybrid", "truncated_gaussian", "spherical_uniform", "fixed")
POLE = 1e-5
"""How near to a pole a camera may come, in radians."""
TRUNCATION, CANDIDATES = 2.0, 4


def uniform_angles(mean: float, deviation: float, u: Tensor) -> Tensor:
    """mean + deviation (2 u - 1) of u in [0,1): half the width is called deviation.

    >>> uniform_angles(1.0, 0.5, torch.tensor([0.0, 0.5])).tolist()
    [0.5, 1.0]
    """
    return mean + deviation * (2.0 * u - 1.0)


def normal_angles(mean: float, deviation: float, n: Tensor) -> Tensor:
    """mean + deviation n of standard normal n."""
    return mean + deviation * n


def truncated_angles(mean: float, deviation: float, candidates: Tensor) -> Tensor:
    """mean + deviation n, n the first of standard normal ``candidates`` [...,4] that lies within two deviations (else the first of all).

    >>> truncated_angles(0.0, 1.0, torch.tensor([[2.5, 1.5, 0.0, 0.0]])).tolist()
    [1.5]
    """
    first = (candidates.abs() < TRUNCATION).to(torch.uint8).argmax(dim=-1, keepdim=True)
    return mean + deviation * candidates.gather(-1, first)[..., 0]


def spherical_pitch(mean: float, deviation: float, u: Tensor) -> Tensor:
    """Pitch that is uniform on the sphere: arccos(1 - 2 v), v = (mean + deviation (2 u - 1)) / pi, kept off both ends by 1e-5.

    >>> round(spherical_pitch(math.pi / 2, math.pi / 2, torch.tensor([0.5])).item(), 4)
    1.5708
    """
    v = ((u - 0.5) * 2.0 * (deviation / math.pi) + mean / math.pi).clamp(POLE, 1.0 - POLE)
    return (1.0 - 2.0 * v).acos()


@dataclass(frozen=True)
class CameraLaw:
    """Where cameras are drawn: one of MODES, means and deviations of pitch and yaw in radians, the field of view in degrees.

    ``uniform`` reaches one deviation to either side; ``hybrid`` is, for the whole batch by one coin, uniform to two deviations or normal;
    ``truncated_gaussian`` ends at two; ``spherical_uniform`` is uniform in yaw and in height; ``fixed`` takes the means.

    >>> from priorzoo.core.streams import fixed_streams
    >>> [abs(round(v, 3)) for v in CameraLaw("fixed").draw(fixed_streams(0, 2)).position[0].tolist()]
    [0.0, 0.0, 2.7]
    """

    mode: str = "normal"
    pitch_mean: float = math.pi / 2
    pitch_deviation: float = 0.155
    yaw_mean: float = math.pi / 2
    yaw_deviation: float = 0.3
    field_of_view: float = 12.0

    def __post_init__(self) -> None:
        check_choice("camera law", "camera_mode", self.mode, MODES)
        for name in ("pitch_mean", "yaw_mean"):
            check_number("camera law", name, getattr(self, name))
        for name in ("pitch_deviation", "yaw_deviation"):
            check_number("camera law", name, getattr(self, name), least=0.0)
        check_number("camera law", "field_of_view", self.field_of_view, above=0.0, below=180.0)

    def angles(self, streams: Streams) -> tuple[Tensor, Tensor]:
        """Draw pitch and yaw [B], the yaw first; consumer ``cameras``."""
        stream = streams("cameras")
        mode, wide = self.mode, 1.0
        if mode == "hybrid":
            mode, wide = ("uniform", 2.0) if stream.shared_uniform() < 0.5 else ("normal", 1.0)
        yaw_deviation, pitch_deviation = wide * self.yaw_deviation, wide * self.pitch_deviation
        if mode == "uniform":
            yaw = uniform_angles(self.yaw_mean, yaw_deviation, stream.uniform())
            pitch = uniform_angles(self.pitch_mean, pitch_deviation, stream.uniform())
        elif mode == "normal":
            yaw = normal_angles(self.yaw_mean, yaw_deviation, stream.normal())
            pitch = normal_angles(self.pitch_mean, pitch_deviation, stream.normal())
        elif mode == "truncated_gaussian":
            yaw = truncated_angles(self.yaw_mean, yaw_deviation, stream.normal(CANDIDATES))
            pitch = truncated_angles(self.pitch_mean, pitch_deviation, stream.normal(CANDIDATES))
        elif mode == "spherical_uniform":
            yaw = uniform_angles(self.yaw_mean, yaw_deviation, stream.uniform())
            pitch = spherical_pitch(self.pitch_mean, pitch_deviation, stream.uniform())
        else:
            yaw = torch.full((len(stream),), self.yaw_mean, device=streams.device)
            pitch = torch.full((len(stream),), self.pitch_mean, device=streams.device)
        return pitch.clamp(POLE, math.pi - POLE), yaw

    def draw(self, streams: Streams) -> Camera:
        """Draw cameras at the world's radius that look at the origin."""
        pitch, yaw = self.angles(streams)
        return Camera.from_pitch_yaw(pitch, yaw, focal=focal_from_field_of_view(self.field_of_view))
