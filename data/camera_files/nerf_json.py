"""NeRF-style transforms.json (Blender, instant-ngp, nerfstudio): OpenGL axes, one entry per frame."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError
from .frame import CameraFrame, from_opengl, pinhole

DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")  # OPENCV: allowed where all its distortion is 0


def read_nerf_json(path: Path, data: bytes) -> list[CameraFrame]:
    """The frames of a transforms.json.

    A frame's own value goes before the file's. The focal length is fl_x, fl_y (pixels), or follows from camera_angle_x,
    camera_angle_y (radians): 1 / (2 tan(angle / 2)) image widths. The principal point is cx, cy (pixels) or the middle.

    Args:
        path: the file, for messages.
        data: its bytes.

    Raises:
        DataError: naming the file and the frame: not JSON, no frames, a matrix that is none, lens distortion, no focal length.
    """
    try:
        content: Any = json.loads(data)
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error})") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise DataError(f"{path}: holds no list of frames")
    return [_frame(f"{path}, frame {index + 1}", content, frame) for index, frame in enumerate(frames)]


def _frame(where: str, shared: dict[str, Any], frame: dict[str, Any]) -> CameraFrame:
    name = frame.get("file_path")
    if not isinstance(name, str) or not name:
        raise DataError(f"{where}: has no file_path")
    where_name = f"{where} ({name})"

    def value(key: str) -> float | None:
        given = frame.get(key, shared.get(key))
        if given is None:
            return None
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given):
            raise DataError(f"{where_name}: {key} must be a finite number, got {given!r}")
        return float(given)

    model = frame.get("camera_model", shared.get("camera_model", "PINHOLE"))
    bent = [f"{key} = {value(key):g}" for key in DISTORTION if value(key)]
    if model not in PINHOLE_MODELS or bent or frame.get("is_fisheye", shared.get("is_fisheye")):
        got = f"camera model {model}" + (f" with {', '.join(bent)}" if bent else "")
        raise DataError(f"{where_name}: {got}; only pictures without lens distortion can be packed: undistort them first")
    try:
        matrix = np.array(frame.get("transform_matrix"), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where_name}: transform_matrix must hold 4 x 4 numbers ({error})") from error
    if matrix.shape != (4, 4):
        raise DataError(f"{where_name}: transform_matrix must hold 4 x 4 numbers, got {' x '.join(map(str, matrix.shape)) or 'none'}")
    return CameraFrame(name, where, from_opengl(matrix), *_intrinsics(where_name, value))


def _intrinsics(where: str, value: Any) -> tuple[np.ndarray, Any, tuple[int, int] | None]:
    """Matrix, its unit, and the size of the picture where it is known."""
    width, height = value("w"), value("h")
    size = (int(width), int(height)) if width and height else None
    if value("fl_x") is not None or value("fl_y") is not None:
        fx, fy = (value(a) if value(a) is not None else value(b) for a, b in (("fl_x", "fl_y"), ("fl_y", "fl_x")))
        if value("cx") is None or value("cy") is None:
            if size is None:
                raise DataError(f"{where}: fl_x without cx, cy needs w and h to know the middle of the picture")
            return pinhole(fx, fy, size[0] / 2, size[1] / 2), "pixels", size
        return pinhole(fx, fy, value("cx"), value("cy")), "pixels", size
    if value("camera_angle_x") is None:
        raise DataError(f"{where}: has no focal length: fl_x or camera_angle_x is needed")
    fx = 0.5 / math.tan(value("camera_angle_x") / 2)
    cx = value("cx") / width if value("cx") is not None and width else 0.5
    cy = value("cy") / height if value("cy") is not None and height else 0.5
    if value("camera_angle_y") is None:
        return pinhole(fx, fx, cx, cy), "widths", size
    return pinhole(fx, 0.5 / math.tan(value("camera_angle_y") / 2), cx, cy), "picture", size
