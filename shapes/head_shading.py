"""Colours of the procedural head: albedo by class, light, and the backdrop."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..core.classes import CLASS_IDS
from .head_coordinates import MODEL_OFFSET_Y, MODEL_SCALE
from .head_model import eyelid_line, head_distance
from .head_parameters import HeadParameters

_GOLD, _SILVER = (0.88, 0.70, 0.25), (0.80, 0.78, 0.72)


def _is(labels: Tensor, *names: str) -> Tensor:
    mask = torch.zeros_like(labels, dtype=torch.bool)
    for name in names:
        mask |= labels == CLASS_IDS[name]
    return mask


def _texture(points: Tensor, scale: float) -> Tensor:
    """A cheap band-limited texture in [-1, 1]: products of bent sines."""
    x, y, z = (points * scale).unbind(-1)
    return torch.sin(x + 1.7 * torch.sin(1.3 * y)) * torch.sin(y + 1.9 * torch.sin(1.1 * z)) * torch.sin(z + 1.5 * torch.sin(1.2 * x))


def _eye_colour(x: Tensor, y: Tensor, z: Tensor, p: Mapping[str, Tensor], iris_colour: Tensor) -> Tensor:
    """White, iris with a dark rim, pupil and one painted glint (painted, so that it is the same from all views)."""
    side = torch.where(x < 0, -1.0, 1.0)
    # directions from the eyeball's centre, so that iris and pupil are round on the ball
    u, v = (x - side * p["eye_x"]) / p["eye_radius"], (y - p["eye_y"] - side * p["eye_skew"]) / p["eye_radius"]
    r = ((u - p["gaze_x"]).square() + (v - p["gaze_y"]).square()).sqrt()
    glint = ((u - p["gaze_x"] + 0.17).square() + (v - p["gaze_y"] - 0.17).square()).sqrt()
    white = torch.tensor([0.96, 0.96, 0.95], device=x.device, dtype=x.dtype).expand_as(iris_colour)
    colour = torch.where((r < 0.50)[:, None], iris_colour * torch.where(r < 0.43, 1.15, 0.55)[:, None], white)
    colour = torch.where((r < 0.25)[:, None], torch.full_like(colour, 0.03), colour)
    return torch.where((glint < 0.11)[:, None], torch.ones_like(colour), colour)


def _albedo(points: Tensor, labels: Tensor, p: Mapping[str, Tensor], colours: Mapping[str, Tensor]) -> Tensor:
    x, y, z = (points / MODEL_SCALE).unbind(-1)
    y = y - MODEL_OFFSET_Y / MODEL_SCALE
    skin, hair = colours["skin_colour"], colours["hair_colour"]
    albedo = skin * (1 + 0.025 * _texture(points, 55.0))[:, None]
    blush = 0.16 * torch.exp(-((x.abs() - 0.095).square() + (y + 0.075).square()) / 0.0018) * (z > 0)
    albedo = albedo + blush[:, None] * skin[:, :1] * torch.tensor([0.35, -0.45, -0.35], device=x.device, dtype=x.dtype)
    nose_tip = 0.10 * torch.exp(-((y - p["eye_y"] + 0.065).square() + x.square()) / 0.0012)
    albedo = albedo * (1 - nose_tip[:, None] * _is(labels, "nose")[:, None] * torch.tensor([0.2, 1.0, 0.8], device=x.device, dtype=x.dtype))
    albedo = torch.where((eyelid_line(x, y, z, p) & _is(labels, "skin"))[:, None], skin * 0.22, albedo)

    def put(mask: Tensor, colour: Tensor) -> None:
        nonlocal albedo
        albedo = torch.where(mask[:, None], colour, albedo)

    strands = 1 + 0.20 * torch.sin(torch.atan2(x, z + 0.056) * 26 + 6 * y + p["phase"])
    put(_is(labels, "hair"), hair * strands[:, None])
    put(_is(labels, "left_brow", "right_brow"), torch.minimum(hair * 0.55, skin * 0.36))
    put(_is(labels, "upper_lip"), colours["lip_colour"] * 0.86)
    put(_is(labels, "lower_lip"), colours["lip_colour"])
    put(_is(labels, "mouth"), torch.tensor([0.24, 0.05, 0.07], device=x.device, dtype=x.dtype).expand_as(albedo))
    put(_is(labels, "cloth"), colours["cloth_colour"] * (1 + 0.06 * torch.sin(90 * y))[:, None])
    put(_is(labels, "hat"), colours["hat_colour"])
    put(_is(labels, "eyeglasses"), colours["glasses_colour"])
    put(_is(labels, "earring"), torch.tensor(_GOLD, device=x.device, dtype=x.dtype).expand_as(albedo))
    put(_is(labels, "necklace"), torch.tensor(_SILVER, device=x.device, dtype=x.dtype).expand_as(albedo))
    put(_is(labels, "left_eye", "right_eye"), _eye_colour(x, y, z, p, colours["iris_colour"]))
    return albedo


def shade(
    points: Tensor,
    normals: Tensor,
    labels: Tensor,
    to_eye: Tensor,
    p: Mapping[str, Tensor],
    colours: Mapping[str, Tensor],
) -> Tensor:
    """Colours [M, 3] of surface points: wrapped Lambert, sky, ambient occlusion by one distance probe, a soft gloss.

    Args:
        points, normals, to_eye: [M, 3], world frame; normals and directions to the camera of unit length.
        labels: [M], class ids.
        p, colours: parameters per point, [M] and [M, 3].
    """
    light = colours["light"]
    wrapped = (((normals * light).sum(-1) + 0.25) / 1.25).clamp_min(0)
    sky = 0.5 + 0.5 * normals[:, 1]
    probe = 0.045
    openness = (head_distance(points + probe * normals, p) / probe).clamp(0, 1)  # 1 in the open, towards 0 in creases
    occlusion = 0.55 + 0.45 * openness
    half = normalize(light + to_eye, dim=-1)
    gloss = (normals * half).sum(-1).clamp_min(0)
    eye, hair = _is(labels, "left_eye", "right_eye"), _is(labels, "hair")
    shine = torch.where(eye, 0.25 * gloss**60, torch.where(hair, 0.16 * gloss**14, 0.07 * gloss**18))
    lit = (p["ambient"] * (0.75 + 0.45 * sky) + p["key_light"] * wrapped) * occlusion
    colour = _albedo(points, labels, p, colours) * lit[:, None] + (shine * p["key_light"])[:, None]
    return colour.clamp(0, 1) ** (1 / 1.15)


def backdrop(parameters: HeadParameters, resolution: int, background: str) -> Tensor:
    """Backdrops [B, H, W, 3] in [0, 1]: 'plain' white, 'gradient' vertical, 'textured' a pattern of two colours."""
    low, high = parameters.values["background_low"], parameters.values["background_high"]
    shape = (len(parameters), resolution, resolution, 3)
    if background == "plain":
        return torch.ones(shape, device=low.device, dtype=low.dtype)
    at = (torch.arange(resolution, device=low.device, dtype=low.dtype) + 0.5) / resolution
    v, u = torch.meshgrid(at, at, indexing="ij")
    mix = v.expand(shape[:3])
    if background == "textured":
        phase = parameters.values["phase"][:, :, None]
        mix = 0.5 + 0.5 * torch.sin(9 * u + 2.1 * torch.sin(7 * v + phase)) * torch.sin(8 * v + 1.7 * torch.sin(6 * u + 2 * phase))
    return low[:, None, None] * (1 - mix[..., None]) + high[:, None, None] * mix[..., None]
