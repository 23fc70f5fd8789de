"""The procedural head: a signed distance and class labels in closed form.

World units are EG3D's: the head lies in a cube of side 1 about the origin, y up, the face looks to +z. The solids are
written in model units (a head about 0.55 high) and scaled by MODEL_SCALE, so that the head fills EG3D's frame.
Points [..., 3] go with parameters that broadcast against [...]: [B, N, 3] with [B, 1], or [M, 3] with [M].
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..core.classes import CLASS_IDS
from .head_coordinates import EYE_Z, MODEL_SCALE, Face, Values, face_coordinates
from .head_dress import accessories, clothes, hair
from .head_parameters import HeadParameters
from .head_solids import capsule, ellipsoid, length, smooth_max, smooth_min

BOUNDING_RADIUS = 0.62  # model units; nothing of the head lies outside this sphere except shoulders below the frame
MOUTH_Z = 0.1500


class HeadParts(NamedTuple):
    """Signed distances (model units) of the solids that make a head, and helpers that only the labels need."""

    skin: Tensor
    eyes: Tensor
    hair: Tensor
    hat: Tensor
    glasses: Tensor
    earrings: Tensor
    necklace: Tensor
    cloth: Tensor
    base: Tensor  # the head without nose, ears, neck, lips
    nose: Tensor
    ears: Tensor
    neck: Tensor


SOLIDS = 8  # the first fields of HeadParts are the surface; the rest are helpers


def _aperture(f: Face, p: Values) -> Tensor:
    """Almond between the lids, seen from the front: negative inside, about a distance in model units."""
    dx, dy = f.ax - f.eye_x, f.y - f.eye_y
    opening = p["eye_opening"] * p["eyelid"]
    dy = dy - p["eye_tilt"] * dx
    return (((dx / p["eye_width"]).square() + (dy / opening).square()).sqrt() - 1) * opening


def _head_base(f: Face, p: Values) -> Tensor:
    """Cranium, mid-face, jaw, cheeks, brow ridge, muzzle, minus shallow sockets."""
    x, y, z, ax = f.x, f.y, f.z, f.ax
    zero = torch.zeros_like(p["jaw_width"])
    cranium = ellipsoid(x, y - 0.075, z + 0.050, p["head_width"], p["head_height"], p["head_depth"])
    middle = ellipsoid(x, y + 0.075, z - 0.025, p["jaw_width"], 0.150, 0.125)
    jaw = capsule(
        ax,
        y,
        z,
        (zero, p["chin_y"] + p["chin_radius"], p["chin_z"]),
        (p["jaw_width"] * 0.78, zero - 0.10, zero - 0.035),
        p["chin_radius"],
        0.055,
    )
    base = smooth_min(smooth_min(cranium, middle, 0.09), jaw, 0.07)
    cheek = length(ax - p["cheek_x"], y - p["cheek_y"] - 0.008 * p["smile"], z - 0.082) - p["cheek_radius"]
    base = smooth_min(base, cheek, 0.045)
    brow = p["brow_y"] + f.side * p["brow_skew"]
    ridge = capsule(
        ax,
        y,
        z,
        (zero, brow - 0.004, zero + 0.140),
        (p["eye_x"] + 0.035, brow - 0.002, zero + 0.108),
        0.012 + p["brow_ridge"],
        0.010 + p["brow_ridge"],
    )
    base = smooth_min(base, ridge, 0.035)
    muzzle = ellipsoid(x, y - p["mouth_y"], z - 0.096, 0.072, 0.056, 0.056)
    return smooth_min(base, muzzle, 0.045)


def _nose(f: Face, p: Values) -> tuple[Tensor, Tensor]:
    """Nose (bridge cone, tip, wings) and the nostrils to cut out of it."""
    x = f.x - p["nose_skew"] * ((p["eye_y"] - f.y) * 12).clamp(0, 1)
    ax = x.abs()
    zero = torch.zeros_like(p["nose_out"])
    top, bottom, tip_z = p["eye_y"] + 0.020, p["eye_y"] + 0.020 - p["nose_length"], 0.130 + p["nose_out"]
    nose = capsule(x, f.y, f.z, (zero, top, zero + 0.139), (zero, bottom, tip_z), p["nose_bridge"], p["nose_tip"])
    wing = length(ax - p["nose_width"], f.y - bottom + 0.003, f.z - tip_z + 0.022) - 0.0165
    nostril = ellipsoid(ax - p["nose_width"] * 0.55, f.y - bottom + 0.020, f.z - tip_z + 0.012, 0.0080, 0.0065, 0.010)
    return smooth_min(nose, wing, 0.018), nostril


class Mouth(NamedTuple):
    """Mouth in the plane of the face: u along it in -1...1, v above its line, half heights at u (model units)."""

    u: Tensor
    v: Tensor
    gap: Tensor
    upper: Tensor
    lower: Tensor


def _mouth(f: Face, p: Values) -> Mouth:
    """Lips are bands about a curved line: connected by construction, however thin or open."""
    u = f.x / p["mouth_width"]
    s = (1 - u * u).clamp_min(0)
    lift = p["smile"] * 0.022 * (u * u).clamp_max(1.7) + p["mouth_skew"] * f.x.clamp(-0.1, 0.1)
    v = f.y - p["mouth_y"] - lift
    bow = 1 - 0.22 * (-(u * (1 / 0.22)).square()).exp()  # Cupid's bow
    root = s.sqrt()
    return Mouth(u, v, p["mouth_open"] * s, p["lip_upper"] * root * bow, p["lip_lower"] * root)


def _skin(f: Face, p: Values, base: Tensor, nose: Tensor, nostril: Tensor, ears: Tensor, neck: Tensor) -> Tensor:
    """The skin: base, nose, lids, lips, ears and neck in one smooth surface."""
    ball = length(f.ax - f.eye_x, f.y - f.eye_y, f.z - EYE_Z) - f.eye_radius
    lids = smooth_max(ball - 0.0055, -_aperture(f, p), 0.004)
    socket = length((f.ax - f.eye_x) * 0.85, f.y - f.eye_y + 0.002, f.z - EYE_Z - 0.066) - 0.036
    skin = smooth_max(base, -socket, 0.035)
    skin = smooth_min(smooth_min(skin, nose, 0.022), lids, 0.012)
    skin = smooth_max(skin, -nostril, 0.004)
    m = _mouth(f, p)
    curved = f.z + 2.0 * f.x.square() - MOUTH_Z
    gap, upper, lower = p["mouth_open"], p["lip_upper"], p["lip_lower"]
    lips = torch.minimum(
        ellipsoid(f.x, m.v - gap * 0.8 - upper * 0.45, curved, p["mouth_width"], upper * 0.60, 0.0185),
        ellipsoid(f.x, m.v + gap * 0.8 + lower * 0.45, curved, p["mouth_width"] * 0.92, lower * 0.60, 0.0200),
    )
    skin = smooth_min(skin, lips, 0.007)
    hole = ellipsoid(f.x, m.v, curved - 0.006, p["mouth_width"] * 0.86, gap + 0.0015, 0.026)
    skin = smooth_max(skin, -hole, 0.005)
    return smooth_min(smooth_min(skin, neck, 0.035), ears, 0.012)


def _ears(f: Face, p: Values) -> Tensor:
    """Flattened bowls at the sides; the flare turns them outwards, the skew sets one a little higher."""
    flare, size = p["ear_flare"], p["ear_size"]
    out = f.ax - p["head_width"] * 0.985 - 0.010
    c, s = flare.cos(), flare.sin()
    rx, rz = c * out + s * (f.z + 0.02), c * (f.z + 0.02) - s * out
    y = f.y - f.side * p["ear_skew"] + 0.25 * rz
    ear = ellipsoid(rx, y - 0.005, rz + 0.012, 0.0165, size, size * 0.62)
    bowl = ellipsoid(rx - 0.013, y - 0.010, rz + 0.006, 0.012, size * 0.66, size * 0.38)
    return smooth_max(ear, -bowl, 0.010)


def _parts(f: Face, p: Values) -> HeadParts:
    base = _head_base(f, p)
    nose, nostril = _nose(f, p)
    ears = _ears(f, p)
    neck, cloth = clothes(f, p)
    skin = _skin(f, p, base, nose, nostril, ears, neck)
    # The ball ends behind the lids' edge, so that no white shows beside the almond.
    eyes = torch.maximum(length(f.ax - f.eye_x, f.y - f.eye_y, f.z - EYE_Z) - f.eye_radius, _aperture(f, p) - 0.002)
    hat, glasses, earrings, necklace = accessories(f, p)
    return HeadParts(skin, eyes, hair(f, p), hat, glasses, earrings, necklace, cloth, base, nose, ears, neck)


def head_parts(points: Tensor, parameters: HeadParameters | Values) -> HeadParts:
    """Signed distances of the head's single solids, [...] each, model units; arguments as for head_distance."""
    p = _values(parameters)
    return _parts(face_coordinates(points, p), p)


def _values(parameters: HeadParameters | Values) -> Values:
    return parameters.values if isinstance(parameters, HeadParameters) else parameters


def head_distance(points: Tensor, parameters: HeadParameters | Values) -> Tensor:
    """Signed distance to the head's surface: the minimum over its solids, negative inside.

    A bound rather than an exact distance: its gradient's length is near 1 at the surface (median 1.0) and may reach 2
    in creases, so a sphere tracer should take 0.85 of a step.

    Args:
        points: [..., 3], world units.
        parameters: heads whose tensors broadcast against [...] (for [B, N, 3]: the [B, 1] of HeadParameters).

    Returns:
        [...], world units.

    >>> from .head_parameters import sample_heads
    >>> d = head_distance(torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]]), sample_heads(1, seed=0))
    >>> [bool(v) for v in (d[0] < 0)]
    [True, False]
    """
    parts = head_parts(points, parameters)
    nearest = parts[0]
    for solid in parts[1:SOLIDS]:
        nearest = torch.minimum(nearest, solid)
    return nearest * MODEL_SCALE


def _brow(f: Face, p: Values) -> Tensor:
    """Where a brow is painted: an arched band over each eye that tapers outwards."""
    along = f.ax - p["eye_x"] - 0.004
    centre = p["brow_y"] + p["brow_raise"] + f.side * p["brow_skew"] + p["brow_arch"] * (1 - (along / 0.05).square())
    half = p["brow_thickness"] * (1 - 0.45 * ((along + 0.01) / 0.055).clamp(0, 1.2))
    return ((f.y - centre).abs() < half) & (along.abs() < 0.050) & (f.z > 0.03)


def eyelid_line(x: Tensor, y: Tensor, z: Tensor, p: Values) -> Tensor:
    """Where the dark line of the lashes is painted on the lids: [M] bool for surface points in model units."""
    x = x + p["shear"] * y
    side = (x * (1 / 0.03)).clamp(-1, 1)
    f = Face(x, y, z, x.abs(), side, p["eye_x"], p["eye_y"] + side * p["eye_skew"], p["eye_radius"])
    edge = _aperture(f, p)
    width = torch.where(f.y > f.eye_y, 0.009, 0.003)
    return (edge < width) & (edge > -0.004) & (z > 0.04)


def head_labels(points: Tensor, parameters: HeadParameters | Values) -> Tensor:
    """Class id (core.classes) of surface points; points off the surface get the class of the nearest solid.

    Args:
        points: [..., 3], world units, on or near the surface.
        parameters: as for head_distance.

    Returns:
        [...] uint8.
    """
    p = _values(parameters)
    f = face_coordinates(points, p)
    parts = _parts(f, p)
    owner = torch.stack([solid.expand_as(parts.skin) for solid in parts[:SOLIDS]]).argmin(0)
    labels = torch.full_like(owner, CLASS_IDS["skin"], dtype=torch.uint8)

    def paint(where: Tensor, name: str) -> None:
        labels.masked_fill_(where, CLASS_IDS[name])

    def paint_sides(where: Tensor, name: str) -> None:
        paint(where & (f.x < 0), f"left_{name}")  # seen from the front, -x is left in the image
        paint(where & (f.x >= 0), f"right_{name}")

    paint((parts.nose < parts.base + 0.003) & (parts.nose < 0.008), "nose")
    paint((parts.neck < parts.base) & (f.y < -0.12) & (f.z < 0.12), "neck")
    paint_sides(parts.ears < torch.minimum(parts.base, parts.neck) - 0.001, "ear")
    paint_sides(_brow(f, p) & (labels == CLASS_IDS["skin"]), "brow")
    m = _mouth(f, p)
    front = (f.z > 0.05) & (m.u.abs() < 1)
    paint(front & (m.v >= 0) & (m.v < m.gap + m.upper), "upper_lip")
    paint(front & (m.v < 0) & (m.v > -m.gap - m.lower), "lower_lip")
    paint(front & (m.v.abs() < m.gap) & (p["mouth_open"] > 0), "mouth")
    paint_sides(owner == 1, "eye")
    for index, name in enumerate(("hair", "hat", "eyeglasses", "earring", "necklace", "cloth"), start=2):
        paint(owner == index, name)
    return labels
