"""What a procedural head wears: hair, clothes, hat, glasses, earrings, necklace, as signed distances in model units."""

from __future__ import annotations

import torch
from torch import Tensor

from .head_coordinates import EYE_Z, Face, Values
from .head_solids import capsule, ellipsoid, length, smooth_max, smooth_min

ABSENT = 9.0  # distance added to a part that the head does not have


def hair(f: Face, p: Values) -> Tensor:
    """A shell about the cranium and hanging volumes, with an opening for the face that may be parted to a side."""
    x, y, z, ax = f.x, f.y, f.z, f.ax
    thick, long = p["hair_thickness"], p["hair_length"]
    shell = ellipsoid(x, y - 0.082, z + 0.058, p["head_width"] + thick * 0.85, p["head_height"] + thick, p["head_depth"] + thick * 0.9)
    zero = torch.zeros_like(long)
    hang = capsule(
        ax,
        y,
        z,
        (zero + 0.090, zero + 0.08, zero - 0.10),
        (0.118 + 0.02 * (long < -0.2), long, zero - 0.085),
        0.108 + thick,
        0.072 + thick * 0.8,
    )
    shape = smooth_min(shell, hang, 0.05)
    top = p["hair_line"] + 0.075
    # The parting lifts the fringe on one side and lowers it on the other; the middle of the opening stays.
    opening = ellipsoid(
        x - p["hair_parting"],
        y + 0.075 - 0.30 * p["hair_parting"] * (x * 10).clamp(-1.5, 1.5),
        z - 0.205,
        p["hair_side"],
        top,
        0.250,
    )
    above = (-0.02 - (z + 0.10) * 0.55) - y  # the shell ends at a slanted line; only the hanging part goes below it
    shape = smooth_max(smooth_max(shape, -opening, 0.020), torch.minimum(above, hang), 0.03)
    ear_free = ellipsoid(ax - p["head_width"], y - 0.002, z + 0.012, 0.09, p["ear_size"] * 1.15, p["ear_size"] * 0.85)
    shape = smooth_max(shape, -(ear_free + ABSENT * (long < -0.06)), 0.015)  # short hair leaves the ears free
    turn = torch.atan2(x, z + 0.055 + 1e-6)
    locks = 0.0032 * torch.sin(turn * 17 + 4 * y + p["phase"]) + 0.0025 * torch.sin(turn * 9 + 19 * y + p["phase"])
    return shape + locks + ABSENT * (1 - p["has_hair"])


def clothes(f: Face, p: Values) -> tuple[Tensor, Tensor]:
    """Neck and clothing: a neck that widens into the shoulders, a garment with a collar."""
    x, y, z = f.x, f.y, f.z
    zero = torch.zeros_like(p["neck_radius"])
    neck = capsule(
        x,
        y,
        z,
        (zero, zero - 0.14, zero - 0.045),
        (zero, zero - 0.42, zero - 0.080),
        p["neck_radius"] * 0.93,
        p["neck_radius"] * 1.25,
    )
    body = ellipsoid(x, y + 0.515, z + 0.085, p["shoulder"] * 1.25, 0.185, 0.190)
    around = length(x * 0.92, 0 * y, z + 0.072) - p["neck_radius"] * 1.36
    collar = (around.square() + (y + 0.345 - 0.22 * (z + 0.07)).square()).sqrt() - 0.028
    return neck, smooth_min(body, collar, 0.05)


def accessories(f: Face, p: Values) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hat, glasses, earrings, necklace; a part nobody in the batch wears is not evaluated."""
    x, y, z, ax = f.x, f.y, f.z, f.ax
    far = torch.full_like(x, ABSENT)
    hat = glasses = earrings = necklace = far
    zero = torch.zeros_like(p["eye_y"])
    if bool((p["has_hat"] > 0).any()):
        thick = p["hair_thickness"]
        rim = y - (p["hair_line"] - 0.012) - 0.10 * z  # height above the tilted plane that dome and brim share
        dome = ellipsoid(
            x,
            y - 0.087,
            z + 0.058,
            p["head_width"] + thick + 0.014,
            p["head_height"] + thick + 0.016,
            p["head_depth"] + thick + 0.014,
        )
        dome = smooth_max(dome, -rim, 0.012)
        brim = smooth_max(ellipsoid(x, rim - 0.004, z - 0.03, 0.225, 0.016, 0.290), 0.02 - z, 0.01)
        hat = smooth_min(dome, brim, 0.02) + ABSENT * (1 - p["has_hat"])
    if bool((p["has_glasses"] > 0).any()):
        dx, dy = ax - p["eye_x"], y - p["eye_y"]
        plane = z - EYE_Z - 0.066 + 1.1 * ax.square()
        rims = ((((dx * 0.92).square() + dy.square()).sqrt() - 0.058).square() + plane.square()).sqrt() - 0.0062
        temple = capsule(
            ax,
            y,
            z,
            (p["eye_x"] + 0.062, p["eye_y"] + 0.014, zero + EYE_Z + 0.043),
            (p["head_width"] + 0.016, p["eye_y"] + 0.014, zero - 0.04),
            0.0055,
            0.0055,
        )
        bridge = capsule(
            ax,
            y,
            z,
            (zero, p["eye_y"] + 0.012, zero + EYE_Z + 0.070),
            (p["eye_x"] - 0.058, p["eye_y"] + 0.008, zero + EYE_Z + 0.064),
            0.0055,
            0.0055,
        )
        glasses = torch.minimum(torch.minimum(rims, temple), bridge) + ABSENT * (1 - p["has_glasses"])
    if bool((p["has_earring"] > 0).any()):
        drop = length(
            ax - p["head_width"] - 0.018 - 0.25 * p["ear_size"] * p["ear_flare"].sin(),
            y + p["ear_size"] + 0.012,
            z + 0.030,
        )
        earrings = drop - 0.017 + ABSENT * (1 - p["has_earring"])
    if bool((p["has_necklace"] > 0).any()):
        around = length(x * 0.95, 0 * y, z + 0.066) - p["neck_radius"] * 1.20
        necklace = (around.square() + (y + 0.300 - 0.45 * (z + 0.066)).square()).sqrt() - 0.011 + ABSENT * (1 - p["has_necklace"])
    return hat, glasses, earrings, necklace
