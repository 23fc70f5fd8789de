"""A scene's own coordinates brought into the world of the labels: the object at the origin, y up, the cameras at radius 2.7."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import DataError
from ..core.options import check_choice

ORIENTATIONS = ("keep", "z_up", "cameras")
NORMALISATIONS = ("none", "sphere", "radius", "aim")
_PARALLEL = 1e-6  # smallest eigenvalue, per camera, of the sum of I - d d^T at which axes still meet in a point
_NO_FRONT = 0.05  # mean direction below which cameras stand all round


@dataclass(frozen=True)
class World:
    """The map x -> scale * rotation (x - centre) from a scene's coordinates to the labels' world."""

    rotation: np.ndarray
    centre: np.ndarray
    scale: float

    def place(self, cam2world: np.ndarray) -> np.ndarray:
        """The cameras [n, 4, 4] in the new world; untouched, to the bit, where the map changes nothing."""
        if self.scale == 1 and not self.centre.any() and np.array_equal(self.rotation, np.eye(3)):
            return cam2world
        placed = cam2world.copy()
        placed[:, :3, :3] = self.rotation @ cam2world[:, :3, :3]
        placed[:, :3, 3] = self.scale * (cam2world[:, :3, 3] - self.centre) @ self.rotation.T
        return placed

    def to_plain(self) -> dict[str, Any]:
        """Rotation, centre and scale as plain numbers."""
        return {"rotation": self.rotation.tolist(), "centre": self.centre.tolist(), "scale": float(self.scale)}


def closest_to_axes(cam2world: np.ndarray) -> np.ndarray:
    """The point [3] with the least sum of squared distances to the cameras' optical axes.

    With d_i the axes and p_i the positions: (sum_i (I - d_i d_i^T)) x = sum_i (I - d_i d_i^T) p_i.

    Args:
        cam2world: **[n, 4, 4]**, OpenCV axes.

    Raises:
        DataError: the axes are parallel, so that no point is closest.
    """
    axes, positions = cam2world[:, :3, 2], cam2world[:, :3, 3]
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(0)
    if np.linalg.eigvalsh(total)[0] < _PARALLEL * len(cam2world):
        raise DataError(f"the optical axes of the {len(cam2world)} cameras are parallel and meet nowhere: give --centre X,Y,Z")
    point: np.ndarray = np.linalg.solve(total, (across @ positions[:, :, None]).sum(0)[:, 0])
    return point


def upright(cam2world: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The rotation [3, 3] that turns the cameras' mean up axis to +y and the side where they stand to +z.

    Raises:
        DataError: the cameras stand all round (no front) or show every way up.
    """
    up = -cam2world[:, :3, 1].mean(0)
    offsets = cam2world[:, :3, 3] - centre
    away = (offsets / np.maximum(np.linalg.norm(offsets, axis=1, keepdims=True), 1e-12)).mean(0)
    if np.linalg.norm(up) < _NO_FRONT:
        raise DataError("--orient cameras: the cameras' up axes cancel each other; use keep or z_up")
    y = up / np.linalg.norm(up)
    front = away - y * (away @ y)
    if np.linalg.norm(front) < _NO_FRONT:
        raise DataError("--orient cameras: the cameras stand all round, so they show no front; use keep or z_up")
    z = front / np.linalg.norm(front)
    return np.stack([np.cross(y, z), y, z])


def world_of(
    cam2world: np.ndarray, *, orient: str = "keep", normalise: str = "none", radius: float = 2.7,
    centre: tuple[float, float, float] | None = None, scale: float | None = None,
) -> World:  # fmt: skip
    """The world that the options ask for.

    Args:
        cam2world: **[n, 4, 4]**, OpenCV axes, the scene's units.
        orient: "keep"; "z_up": z is up and -y the front (Blender's), they become y and z; "cameras": see upright.
        normalise: "sphere" takes the point closest to all optical axes as centre and scales the cameras' mean distance from it
            to `radius`; the others leave the scene.
        centre: **[3]** the scene's point that becomes the origin, instead of the one computed.
        scale: instead of the one computed.

    Raises:
        DataError: no centre or no front can be computed; a scale that is not positive.
    """
    check_choice("data pack", "orient", orient, ORIENTATIONS)
    check_choice("data pack", "normalise", normalise, NORMALISATIONS)
    if (scale is not None and not 0 < scale < float("inf")) or not 0 < radius < float("inf"):
        raise DataError(f"data pack: scale and radius must be positive and finite, got {scale} and {radius}")
    if centre is not None and not np.isfinite(centre).all():
        raise DataError(f"data pack: the centre must be three finite numbers, got {centre}")
    if centre is not None:
        middle = np.array(centre, dtype=np.float64)
    else:
        middle = closest_to_axes(cam2world) if normalise == "sphere" else np.zeros(3)
    if scale is None:
        mean = float(np.linalg.norm(cam2world[:, :3, 3] - middle, axis=1).mean())
        if normalise == "sphere" and mean == 0:
            raise DataError("--normalise sphere: every camera stands in the centre")
        scale = radius / mean if normalise == "sphere" else 1.0
    turns = {"keep": np.eye(3), "z_up": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])}
    return World(turns[orient] if orient in turns else upright(cam2world, middle), middle, scale)


def on_sphere(cam2world: np.ndarray, normalise: str, radius: float) -> np.ndarray:
    """Cameras [n, 4, 4] moved to the sphere of `radius` about the origin; their rotations stay.

    "radius": along the line to the origin (EG3D's FFHQ labels); "aim": to -radius * forward, so that they look at the
    origin (EG3D's AFHQ labels, of which only the rotation is known); anything else: not at all.

    Raises:
        DataError: "radius" of a camera that stands in the origin.
    """
    placed = cam2world.copy()
    if normalise == "radius":
        distance = np.linalg.norm(cam2world[:, :3, 3], axis=1, keepdims=True)
        if not distance.all():
            raise DataError("--normalise radius: a camera stands in the origin; use aim where only rotations are known")
        placed[:, :3, 3] *= radius / distance
    elif normalise == "aim":
        placed[:, :3, 3] = -radius * cam2world[:, :3, 2]
    return placed
