"""COLMAP's sparse models, cameras and images as text or binary (colmap.github.io/format.html)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError, did_you_mean
from .frame import CameraFrame, pinhole

# Number in binary files, number of parameters.
MODELS = {
    "SIMPLE_PINHOLE": (0, 3), "PINHOLE": (1, 4), "SIMPLE_RADIAL": (2, 4), "RADIAL": (3, 5), "OPENCV": (4, 8),
    "OPENCV_FISHEYE": (5, 8), "FULL_OPENCV": (6, 12), "FOV": (7, 5), "SIMPLE_RADIAL_FISHEYE": (8, 4), "RADIAL_FISHEYE": (9, 5),
    "THIN_PRISM_FISHEYE": (10, 12), "RAD_TAN_THIN_PRISM_FISHEYE": (11, 16),
}  # fmt: skip
_BY_NUMBER = {number: (name, count) for name, (number, count) in MODELS.items()}
UNDISTORT = "undistort the pictures first (`colmap image_undistorter` writes pictures and a PINHOLE model)"


@dataclass(frozen=True)
class Lens:
    """One camera of a model: intrinsics float64 [3, 3] in pixels and the picture's (width, height)."""

    intrinsics: np.ndarray
    size: tuple[int, int]


def rotation_from_quaternion(w: float, x: float, y: float, z: float) -> np.ndarray:
    """Rotation matrix [3, 3] of a unit quaternion, scalar first (Hamilton).

    >>> rotation_from_quaternion(0.0, 1.0, 0.0, 0.0).diagonal().tolist()
    [1.0, -1.0, -1.0]
    """
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def pose_from_colmap(where: str, quaternion: list[float], translation: list[float]) -> np.ndarray:
    """Camera-to-world [4, 4] of COLMAP's world-to-camera: rotation R^T, position -R^T t. Its camera axes are OpenCV's.

    Args:
        where: file and place, for messages.
        quaternion: scalar first; its length is taken to 1 (text files round it).
        translation: of the world-to-camera map, in the model's unit.

    Raises:
        DataError: not finite, or the quaternion's length is off 1 by more than 1e-3.

    >>> pose_from_colmap("", [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 2.7])[:3, 3].tolist()
    [0.0, 0.0, 2.7]
    """
    numbers = np.array([*quaternion, *translation])
    if not np.isfinite(numbers).all():
        raise DataError(f"{where}: the pose holds a number that is not finite")
    length = float(np.linalg.norm(numbers[:4]))
    if abs(length - 1) > 1e-3:
        raise DataError(f"{where}: the quaternion's length is {length:.4g}, not 1")
    rotation = rotation_from_quaternion(*(numbers[:4] / length))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.T
    matrix[:3, 3] = -rotation.T @ numbers[4:] + 0.0  # + 0.0: no negative zeros
    return matrix


def lens(where: str, model: str, width: int, height: int, parameters: list[float]) -> Lens:
    """The intrinsics of a camera without distortion.

    Raises:
        DataError: an unknown model, one with distortion, sizes or parameters that are impossible.
    """
    if model not in MODELS:
        raise DataError(f"{where}: unknown camera model {model!r}{did_you_mean(model, MODELS)}")
    if len(parameters) != MODELS[model][1]:
        raise DataError(f"{where}: model {model} has {MODELS[model][1]} parameters, got {len(parameters)}")
    if width < 1 or height < 1 or not all(math.isfinite(p) for p in parameters):
        raise DataError(f"{where}: {width} x {height} pixels with parameters {parameters} is no camera")
    if model == "SIMPLE_RADIAL" and parameters[3] == 0:
        model, parameters = "SIMPLE_PINHOLE", parameters[:3]
    if model == "SIMPLE_RADIAL":
        raise DataError(f"{where}: model SIMPLE_RADIAL with k = {parameters[3]:g}: {UNDISTORT}")
    if model not in ("SIMPLE_PINHOLE", "PINHOLE"):
        raise DataError(f"{where}: model {model} has lens distortion: {UNDISTORT}")
    focal = parameters[:1] * 2 if model == "SIMPLE_PINHOLE" else parameters[:2]
    return Lens(pinhole(focal[0], focal[1], *parameters[-2:]), (width, height))


def read_colmap(folder: Path) -> list[CameraFrame]:
    """The frames of a folder with cameras and images, binary where both are there (as COLMAP itself reads).

    Raises:
        DataError: naming the file and the line or image.
    """
    ending = "bin" if (folder / "cameras.bin").is_file() and (folder / "images.bin").is_file() else "txt"
    cameras, images = folder / f"cameras.{ending}", folder / f"images.{ending}"
    for path in (cameras, images):
        if not path.is_file():
            raise DataError(f"{folder}: holds no {path.name} (a COLMAP model is cameras and images, .txt or .bin)")
    if ending == "bin":
        return _read_binary_images(images, _read_binary_cameras(cameras))
    return _read_text_images(images, _read_text_cameras(cameras))


def _frame(where: str, name: str, pose: list[float], camera: int, lenses: dict[int, Lens]) -> CameraFrame:
    if camera not in lenses:
        raise DataError(f"{where} ({name}): camera {camera} is not in the file of cameras")
    matrix = pose_from_colmap(f"{where} ({name})", pose[:4], pose[4:])
    return CameraFrame(name, where, matrix, lenses[camera].intrinsics, "pixels", lenses[camera].size)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text in UTF-8 ({error})") from error


def _read_text_cameras(path: Path) -> dict[int, Lens]:
    lenses: dict[int, Lens] = {}
    for number, line in enumerate(_lines(path), start=1):
        words, where = line.split(), f"{path}, line {number}"
        if not words or line.startswith("#"):
            continue
        try:
            camera, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            parameters = [float(word) for word in words[4:]]
        except (ValueError, IndexError) as error:
            raise DataError(f"{where}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS, got {line[:80]!r}") from error
        if camera in lenses:
            raise DataError(f"{where}: camera {camera} stands twice")
        lenses[camera] = lens(where, model, width, height, parameters)
    return lenses


def _read_text_images(path: Path, lenses: dict[int, Lens]) -> list[CameraFrame]:
    """Every image has two lines: its pose, and the points seen in it (an empty line where there are none)."""
    frames: list[CameraFrame] = []
    points_follow = False
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}, line {number}"
        if points_follow:
            words = line.split()
            if len(words) % 3 or (words and not _is_number(words[-1])):
                raise DataError(f"{where}: expected the points of {frames[-1].name!r}, three numbers each, or an empty line")
            points_follow = False
            continue
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split(maxsplit=9)
        try:
            pose, camera, name = [float(word) for word in words[1:8]], int(words[8]), words[9].strip()
        except (ValueError, IndexError) as error:
            raise DataError(f"{where}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, got {line[:80]!r}") from error
        frames.append(_frame(where, name, pose, camera, lenses))
        points_follow = True
    return frames


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


class _Bytes:
    """Little-endian values read one after the other from a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.place = path, path.read_bytes(), 0

    def take(self, form: str, what: str) -> tuple[Any, ...]:
        """The next values."""
        size = struct.calcsize("<" + form)
        self.jump(size, what)
        return struct.unpack_from("<" + form, self.data, self.place - size)

    def jump(self, size: int, what: str) -> None:
        """Go on by `size` bytes, if there are as many."""
        if self.place + size > len(self.data):
            raise DataError(f"{self.path}: ends within {what}, at byte {len(self.data)}; a copy cut short looks like this")
        self.place += size

    def text(self, what: str) -> str:
        """Text up to a zero byte."""
        end = self.data.find(b"\0", self.place)
        if end < 0:
            self.jump(len(self.data), what)
        raw, self.place = self.data[self.place : end], end + 1
        return raw.decode("utf-8", errors="replace")

    def end(self) -> None:
        """Refuse what is left over."""
        if self.place != len(self.data):
            raise DataError(f"{self.path}: {len(self.data) - self.place} bytes are left over after the last entry")


def _read_binary_cameras(path: Path) -> dict[int, Lens]:
    source = _Bytes(path)
    (count,) = source.take("Q", "the number of cameras")
    lenses: dict[int, Lens] = {}
    for index in range(count):
        where = f"camera {index + 1} of {count}"
        camera, number, width, height = source.take("IiQQ", where)
        if number not in _BY_NUMBER:
            raise DataError(f"{path}, {where}: unknown camera model number {number}")
        if camera in lenses:
            raise DataError(f"{path}, {where}: camera {camera} stands twice")
        name, parameters = _BY_NUMBER[number]
        lenses[camera] = lens(f"{path}, {where}", name, width, height, list(source.take(f"{parameters}d", where)))
    source.end()
    return lenses


def _read_binary_images(path: Path, lenses: dict[int, Lens]) -> list[CameraFrame]:
    source = _Bytes(path)
    (count,) = source.take("Q", "the number of images")
    frames = []
    for index in range(count):
        where = f"image {index + 1} of {count}"
        _, *pose, camera = source.take("I7dI", where)
        name = source.text(where)
        (points,) = source.take("Q", where)
        source.jump(24 * points, where)  # x, y as doubles and the number of the point
        frames.append(_frame(f"{path}, {where}", name, pose, camera, lenses))
    source.end()
    return frames
