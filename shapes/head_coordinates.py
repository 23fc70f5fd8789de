"""Coordinates in which the procedural head is written: model units, sheared, folded onto one side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

MODEL_SCALE = 0.92  # world units per model unit
MODEL_OFFSET_Y = -0.006  # world height of the model's origin
EYE_Z = 0.0980  # model depth of the eyeball's centre

Values = Mapping[str, Tensor]


class Face(NamedTuple):
    """Coordinates of one evaluation: warped point, |x|, side and the quantities that depend on the side."""

    x: Tensor
    y: Tensor
    z: Tensor
    ax: Tensor
    side: Tensor  # -1 ... 1, a ramp through the middle so that asymmetry makes no step
    eye_x: Tensor
    eye_y: Tensor
    eye_radius: Tensor


def face_coordinates(points: Tensor, p: Values) -> Face:
    """Warp world points to the model, sheared sideways: the simplest honest asymmetry of the whole head."""
    x, y, z = points.unbind(-1)
    x, y, z = x / MODEL_SCALE, (y - MODEL_OFFSET_Y) / MODEL_SCALE, z / MODEL_SCALE
    x = x + p["shear"] * y
    side = (x * (1 / 0.03)).clamp(-1, 1)
    return Face(
        x,
        y,
        z,
        x.abs(),
        side,
        p["eye_x"],
        p["eye_y"] + side * p["eye_skew"],
        p["eye_radius"] * (1 + side * p["eye_unequal"]),
    )
