"""One picture's camera as its file gives it, in the one convention: OpenCV axes, camera to world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ...core.errors import DataError

IntrinsicsUnit = Literal["pixels", "picture", "widths", "packed"]


@dataclass(frozen=True)
class CameraFrame:
    """The camera of one picture.

    name: the picture's name as the file writes it; where: file and line or frame, for messages.
    cam2world: float64 [4, 4]; rotation columns right, down, forward, last column the position, in the file's world.
    intrinsics: float64 [3, 3]; `unit` says whether they are in "pixels", divided by the "picture"'s width and height, so but
    both focal lengths in picture "widths", or true of the "packed" picture whatever is cut off.
    size: (width, height) in pixels of the picture that the file speaks of, where it says so.
    """

    name: str
    where: str
    cam2world: np.ndarray
    intrinsics: np.ndarray
    unit: IntrinsicsUnit = "picture"
    size: tuple[int, int] | None = None


def from_opengl(matrix: np.ndarray) -> np.ndarray:
    """Camera-to-world matrices [..., 4, 4] of OpenGL axes (x right, y up, z backward) with OpenCV's axes.

    The camera's y and z axes are negated: columns 1 and 2. The world and the position stay as they are.

    >>> from_opengl(np.eye(4))[:3, :3].diagonal().tolist()
    [1.0, -1.0, -1.0]
    """
    return matrix * np.array([1.0, -1.0, -1.0, 1.0])


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """Intrinsics float64 [3, 3] without skew, in the unit of the arguments."""
    return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def packed_intrinsics(frame: CameraFrame, picture: tuple[int, int], box: tuple[int, int, int, int]) -> np.ndarray:
    """Intrinsics of a cut picture, divided by its size: float64 [3, 3].

    With W, H the picture's size, (left, top) the cut's corner and s its side, the first row is (K_0 W - (0, 0, left)) / s and
    the second (K_1 H - (0, 0, top)) / s. Resizing changes nothing.

    Args:
        picture: (width, height) of the picture in pixels.
        box: (left, top, right, bottom) of the cut in pixels.

    Raises:
        DataError: the camera file speaks of a picture of another shape.

    >>> frame = CameraFrame("a.png", "cameras", np.eye(4), pinhole(300.0, 300.0, 200.0, 150.0), "pixels", (400, 300))
    >>> packed_intrinsics(frame, (400, 300), (50, 0, 350, 300))[0].tolist()
    [1.0, 0.0, 0.5]
    """
    if frame.unit == "packed":
        return frame.intrinsics
    width, height = picture
    size = frame.size or picture
    # A picture made smaller keeps its shape up to the rounding of one pixel.
    if abs(width * size[1] - height * size[0]) > max(size):
        raise DataError(
            f"{frame.where}: the camera of {frame.name!r} is one of {size[0]} x {size[1]} pixels, the picture has {width} x {height}"
        )
    matrix = frame.intrinsics
    if frame.unit == "pixels":
        matrix = matrix / np.array([[size[0]], [size[1]], [1.0]])
    if frame.unit == "widths":
        matrix = matrix * np.array([[1.0, 1.0, 1.0], [1.0, size[0] / size[1], 1.0], [1.0, 1.0, 1.0]])
    left, top, right, bottom = box
    if box == (0, 0, width, height):
        return matrix
    out = matrix.copy()
    out[0] = (matrix[0] * width - np.array([0.0, 0.0, left])) / (right - left)
    out[1] = (matrix[1] * height - np.array([0.0, 0.0, top])) / (bottom - top)
    return out
