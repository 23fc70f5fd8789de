"""The procedural head: a signed distance and class labels in closed form.

World units are EG3D's: the head lies in a cube of side 1 about the origin, y up, the face looks to +z. The solids are
written in model units (a head about 0.55 high) and scaled by MODEL_SCALE, so that the head fills EG3D's frame.
Points [..., 3] go with parameters that broadcast against [...]: [B, N, 3] with [B, 1], or [M, 3] with [M].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from ..core.classes import CLASS_IDS
from .head_parameters import HeadParameters
from .head_solids import capsule, ellipsoid, length, smooth_max, smooth_min

MODEL_SCALE = 0.92  # world units per model unit
MODEL_OFFSET_Y = -0.006  # world height of the model's origin
BOUNDING_RADIUS = 0.62  # model units; nothing of the head lies outside this sphere except shoulders below the frame
ABSENT = 9.0  # distance added to a part that the head does not have
EYE_Z = 0.0980  # model depth of the eyeball's centre
MOUTH_Z = 0.1500

Values = Mapping[str, Tensor]


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


class _Face(NamedTuple):
    """Coordinates of one evaluation: warped point, |x|, side and the quantities that depend on the side."""

    x: Tensor
    y: Tensor
    z: Tensor
    ax: Tensor
    side: Tensor  # -1 ... 1, a ramp through the middle so that asymmetry makes no step
    eye_x: Tensor
    eye_y: Tensor
    eye_radius: Tensor


def _face(points: Tensor, p: Values) -> _Face:
    """Warp world points to the model, sheared sideways: the simplest honest asymmetry of the whole head."""
    x, y, z = points.unbind(-1)
    x, y, z = x / MODEL_SCALE, (y - MODEL_OFFSET_Y) / MODEL_SCALE, z / MODEL_SCALE
    x = x + p["shear"] * y
    side = (x * (1 / 0.03)).clamp(-1, 1)
    return _Face(x, y, z, x.abs(), side, p["eye_x"], p["eye_y"] + side * p["eye_skew"],
                 p["eye_radius"] * (1 + side * p["eye_unequal"]))


def _aperture(f: _Face, p: Values) -> Tensor:
    """Almond between the lids, seen from the front: negative inside, about a distance in model units."""
    dx, dy = f.ax - f.eye_x, f.y - f.eye_y
    opening = p["eye_opening"] * p["eyelid"]
    dy = dy - p["eye_tilt"] * dx
    return (((dx / p["eye_width"]).square() + (dy / opening).square()).sqrt() - 1) * opening


def _head_base(f: _Face, p: Values) -> Tensor:
    """Cranium, mid-face, jaw, cheeks, brow ridge, muzzle, minus shallow sockets."""
    x, y, z, ax = f.x, f.y, f.z, f.ax
    zero = torch.zeros_like(p["jaw_width"])
    cranium = ellipsoid(x, y - 0.075, z + 0.050, p["head_width"], p["head_height"], p["head_depth"])
    middle = ellipsoid(x, y + 0.075, z - 0.025, p["jaw_width"], 0.150, 0.125)
    jaw = capsule(ax, y, z, (zero, p["chin_y"] + p["chin_radius"], p["chin_z"]), (p["jaw_width"] * 0.78, zero - 0.10, zero - 0.035),
                  p["chin_radius"], 0.055)
    base = smooth_min(smooth_min(cranium, middle, 0.09), jaw, 0.07)
    cheek = length(ax - p["cheek_x"], y - p["cheek_y"] - 0.008 * p["smile"], z - 0.082) - p["cheek_radius"]
    base = smooth_min(base, cheek, 0.045)
    brow = p["brow_y"] + f.side * p["brow_skew"]
    ridge = capsule(ax, y, z, (zero, brow - 0.004, zero + 0.140), (p["eye_x"] + 0.035, brow - 0.002, zero + 0.108),
                    0.012 + p["brow_ridge"], 0.010 + p["brow_ridge"])
    base = smooth_min(base, ridge, 0.035)
    muzzle = ellipsoid(x, y - p["mouth_y"], z - 0.096, 0.072, 0.056, 0.056)
    return smooth_min(base, muzzle, 0.045)


def _nose(f: _Face, p: Values) -> tuple[Tensor, Tensor]:
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


def _mouth(f: _Face, p: Values) -> Mouth:
    """Lips are bands about a curved line: connected by construction, however thin or open."""
    u = f.x / p["mouth_width"]
    s = (1 - u * u).clamp_min(0)
    lift = p["smile"] * 0.022 * (u * u).clamp_max(1.7) + p["mouth_skew"] * f.x.clamp(-0.1, 0.1)
    v = f.y - p["mouth_y"] - lift
    bow = 1 - 0.22 * (-(u * (1 / 0.22)).square()).exp()  # Cupid's bow
    root = s.sqrt()
    return Mouth(u, v, p["mouth_open"] * s, p["lip_upper"] * root * bow, p["lip_lower"] * root)


def _skin(f: _Face, p: Values, base: Tensor, nose: Tensor, nostril: Tensor, ears: Tensor, neck: Tensor) -> Tensor:
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


def _ears(f: _Face, p: Values) -> Tensor:
    """Flattened bowls at the sides; the flare turns them outwards, the skew sets one a little higher."""
    flare, size = p["ear_flare"], p["ear_size"]
    out = f.ax - p["head_width"] * 0.985 - 0.010
    c, s = flare.cos(), flare.sin()
    rx, rz = c * out + s * (f.z + 0.02), c * (f.z + 0.02) - s * out
    y = f.y - f.side * p["ear_skew"] + 0.25 * rz
    ear = ellipsoid(rx, y - 0.005, rz + 0.012, 0.0165, size, size * 0.62)
    bowl = ellipsoid(rx - 0.013, y - 0.010, rz + 0.006, 0.012, size * 0.66, size * 0.38)
    return smooth_max(ear, -bowl, 0.010)


def _hair(f: _Face, p: Values) -> Tensor:
    """A shell about the cranium and hanging volumes, with an opening for the face that may be parted to a side."""
    x, y, z, ax = f.x, f.y, f.z, f.ax
    thick, long = p["hair_thickness"], p["hair_length"]
    shell = ellipsoid(x, y - 0.082, z + 0.058, p["head_width"] + thick * 0.85, p["head_height"] + thick, p["head_depth"] + thick * 0.9)
    zero = torch.zeros_like(long)
    hang = capsule(ax, y, z, (zero + 0.090, zero + 0.08, zero - 0.10), (0.118 + 0.02 * (long < -0.2), long, zero - 0.085),
                   0.108 + thick, 0.072 + thick * 0.8)
    hair = smooth_min(shell, hang, 0.05)
    top = p["hair_line"] + 0.075
    # The parting lifts the fringe on one side and lowers it on the other; the middle of the opening stays.
    opening = ellipsoid(x - p["hair_parting"], y + 0.075 - 0.30 * p["hair_parting"] * (x * 10).clamp(-1.5, 1.5), z - 0.205,
                        p["hair_side"], top, 0.250)
    above = (-0.02 - (z + 0.10) * 0.55) - y  # the shell ends at a slanted line; only the hanging part goes below it
    hair = smooth_max(smooth_max(hair, -opening, 0.020), torch.minimum(above, hang), 0.03)
    ear_free = ellipsoid(ax - p["head_width"], y - 0.002, z + 0.012, 0.09, p["ear_size"] * 1.15, p["ear_size"] * 0.85)
    hair = smooth_max(hair, -(ear_free + ABSENT * (long < -0.06)), 0.015)  # short hair leaves the ears free
    turn = torch.atan2(x, z + 0.055 + 1e-6)
    locks = 0.0032 * torch.sin(turn * 17 + 4 * y + p["phase"]) + 0.0025 * torch.sin(turn * 9 + 19 * y + p["phase"])
    return hair + locks + ABSENT * (1 - p["has_hair"])


def _clothes(f: _Face, p: Values) -> tuple[Tensor, Tensor]:
    """Neck and clothing: a neck that widens into the shoulders, a garment with a collar."""
    x, y, z = f.x, f.y, f.z
    zero = torch.zeros_like(p["neck_radius"])
    neck = capsule(x, y, z, (zero, zero - 0.14, zero - 0.045), (zero, zero - 0.42, zero - 0.080), p["neck_radius"] * 0.93, p["neck_radius"] * 1.25)
    body = ellipsoid(x, y + 0.515, z + 0.085, p["shoulder"] * 1.25, 0.185, 0.190)
    around = length(x * 0.92, 0 * y, z + 0.072) - p["neck_radius"] * 1.36
    collar = (around.square() + (y + 0.345 - 0.22 * (z + 0.07)).square()).sqrt() - 0.028
    return neck, smooth_min(body, collar, 0.05)


def _accessories(f: _Face, p: Values) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hat, glasses, earrings, necklace; a part nobody in the batch wears is not evaluated."""
    x, y, z, ax = f.x, f.y, f.z, f.ax
    far = torch.full_like(x, ABSENT)
    hat = glasses = earrings = necklace = far
    zero = torch.zeros_like(p["eye_y"])
    if bool((p["has_hat"] > 0).any()):
        thick = p["hair_thickness"]
        rim = y - (p["hair_line"] - 0.012) - 0.10 * z  # height above the tilted plane that dome and brim share
        dome = ellipsoid(x, y - 0.087, z + 0.058, p["head_width"] + thick + 0.014, p["head_height"] + thick + 0.016, p["head_depth"] + thick + 0.014)
        dome = smooth_max(dome, -rim, 0.012)
        brim = smooth_max(ellipsoid(x, rim - 0.004, z - 0.03, 0.225, 0.016, 0.290), 0.02 - z, 0.01)
        hat = smooth_min(dome, brim, 0.02) + ABSENT * (1 - p["has_hat"])
    if bool((p["has_glasses"] > 0).any()):
        dx, dy = ax - p["eye_x"], y - p["eye_y"]
        plane = z - EYE_Z - 0.066 + 1.1 * ax.square()
        rims = ((((dx * 0.92).square() + dy.square()).sqrt() - 0.058).square() + plane.square()).sqrt() - 0.0062
        temple = capsule(ax, y, z, (p["eye_x"] + 0.062, p["eye_y"] + 0.014, zero + EYE_Z + 0.043),
                         (p["head_width"] + 0.016, p["eye_y"] + 0.014, zero - 0.04), 0.0055, 0.0055)
        bridge = capsule(ax, y, z, (zero, p["eye_y"] + 0.012, zero + EYE_Z + 0.070),
                         (p["eye_x"] - 0.058, p["eye_y"] + 0.008, zero + EYE_Z + 0.064), 0.0055, 0.0055)
        glasses = torch.minimum(torch.minimum(rims, temple), bridge) + ABSENT * (1 - p["has_glasses"])
    if bool((p["has_earring"] > 0).any()):
        drop = length(ax - p["head_width"] - 0.018 - 0.25 * p["ear_size"] * p["ear_flare"].sin(), y + p["ear_size"] + 0.012, z + 0.030)
        earrings = drop - 0.017 + ABSENT * (1 - p["has_earring"])
    if bool((p["has_necklace"] > 0).any()):
        around = length(x * 0.95, 0 * y, z + 0.066) - p["neck_radius"] * 1.20
        necklace = (around.square() + (y + 0.300 - 0.45 * (z + 0.066)).square()).sqrt() - 0.011 + ABSENT * (1 - p["has_necklace"])
    return hat, glasses, earrings, necklace


def _parts(f: _Face, p: Values) -> HeadParts:
    base = _head_base(f, p)
    nose, nostril = _nose(f, p)
    ears = _ears(f, p)
    neck, cloth = _clothes(f, p)
    skin = _skin(f, p, base, nose, nostril, ears, neck)
    # The ball ends behind the lids' edge, so that no white shows beside the almond.
    eyes = torch.maximum(length(f.ax - f.eye_x, f.y - f.eye_y, f.z - EYE_Z) - f.eye_radius, _aperture(f, p) - 0.002)
    hat, glasses, earrings, necklace = _accessories(f, p)
    return HeadParts(skin, eyes, _hair(f, p), hat, glasses, earrings, necklace, cloth, base, nose, ears, neck)


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
    p = _values(parameters)
    parts = _parts(_face(points, p), p)
    nearest = parts[0]
    for solid in parts[1:SOLIDS]:
        nearest = torch.minimum(nearest, solid)
    return nearest * MODEL_SCALE


def _brow(f: _Face, p: Values) -> Tensor:
    """Where a brow is painted: an arched band over each eye that tapers outwards."""
    along = f.ax - p["eye_x"] - 0.004
    centre = p["brow_y"] + p["brow_raise"] + f.side * p["brow_skew"] + p["brow_arch"] * (1 - (along / 0.05).square())
    half = p["brow_thickness"] * (1 - 0.45 * ((along + 0.01) / 0.055).clamp(0, 1.2))
    return ((f.y - centre).abs() < half) & (along.abs() < 0.050) & (f.z > 0.03)


def eyelid_line(x: Tensor, y: Tensor, z: Tensor, p: Values) -> Tensor:
    """Where the dark line of the lashes is painted on the lids: [M] bool for surface points in model units."""
    x = x + p["shear"] * y
    side = (x * (1 / 0.03)).clamp(-1, 1)
    f = _Face(x, y, z, x.abs(), side, p["eye_x"], p["eye_y"] + side * p["eye_skew"], p["eye_radius"])
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
    f = _face(points, p)
    parts = _parts(f, p)
    owner = torch.stack(torch.broadcast_tensors(*parts[:SOLIDS])).argmin(0)
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
