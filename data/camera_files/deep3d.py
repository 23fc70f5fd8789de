"""Head poses of Deep3DFaceRecon turned into EG3D's cameras."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ...core.camera import EG3D_FOCAL, EG3D_RADIUS
from ...core.errors import DataError
from ..archive import Archive
from .frame import CameraFrame, from_opengl, pinhole
from .mat_file import read_mat

CAMERA_DISTANCE = 10.0  # Deep3DFaceRecon's camera stands here on the z axis, in its units
UNIT = 0.27  # EG3D's world units in one of Deep3DFaceRecon's
FACE_ORIGIN = (0.0, 0.006, 0.161)  # where the face model's origin lies in EG3D's world
FIELDS = ("angle", "trans")


def rotation_from_angles(angles: np.ndarray) -> np.ndarray:
    """The matrix R = (R_z R_y R_x)^T [3, 3] that Deep3DFaceRecon multiplies row vectors with.

    Args:
        angles: about x, y and z, **[3]**, radians.

    >>> rotation_from_angles(np.zeros(3)).tolist() == np.eye(3).tolist()
    True
    """
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return (about_z @ about_y @ about_x).T


def pose_from_face(angles: np.ndarray, translation: np.ndarray, *, radius: float | None = EG3D_RADIUS) -> np.ndarray:
    """Camera-to-world [4, 4], float64, of a picture whose face has this pose (the published FFHQ preprocessing).

    The face is seen at R^T p + t by a camera at (0, 0, 10) that looks along -z. In the face's own frame that camera stands at
    -R (t - (0, 0, 10)), so in EG3D's world at c = -R (t - (0, 0, 10)) 0.27 + (0, 0.006, 0.161). The rotation is R with its y
    and z columns negated (OpenGL's axes become OpenCV's). At last c is moved to the sphere of `radius` about the origin, the
    rotation stays: the camera looks past the origin by a few degrees.

    Args:
        angles: pitch, yaw, roll of the face, **[3]**, radians.
        translation: **[3]**, Deep3DFaceRecon's units.
        radius: world units; None leaves the position as it is.

    >>> pose_from_face(np.zeros(3), np.zeros(3), radius=None)[:3, 3].round(3).tolist()
    [0.0, 0.006, 2.861]
    """
    rotation = rotation_from_angles(np.asarray(angles, dtype=np.float64))
    position = -rotation @ (np.asarray(translation, dtype=np.float64) - np.array([0.0, 0.0, CAMERA_DISTANCE])) * UNIT + FACE_ORIGIN
    if radius is not None:
        position = position * (radius / np.linalg.norm(position))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, position
    return from_opengl(matrix)


def read_deep3d(path: Path, radius: float = EG3D_RADIUS, focal: float = EG3D_FOCAL) -> list[CameraFrame]:
    """The frames of Deep3DFaceRecon's output: angle (3) and trans (3) of every picture.

    Accepted are a folder of NAME.mat, a .npz with name [n], angle [n, 3], trans [n, 3], and a .json {NAME: {"angle": [3], "trans": [3]}}.
    The intrinsics are EG3D's, `focal` image widths of the packed picture.

    Raises:
        DataError: naming the file and the picture.
    """
    if path.is_dir():
        poses = {
            file.relative_to(path).with_suffix("").as_posix(): (str(file), read_mat(str(file), file.read_bytes(), FIELDS))
            for file in sorted(path.rglob("*.mat"))
        }
    elif path.suffix == ".npz":
        poses = _npz(path)
    else:
        poses = _json(path)
    frames = []
    for name, (where, given) in poses.items():
        angle, translation = (_three(where, name, field, given.get(field)) for field in FIELDS)
        pose = pose_from_face(angle, translation, radius=radius)
        frames.append(CameraFrame(name, where, pose, pinhole(focal, focal, 0.5, 0.5), "packed"))
    return frames


def _three(where: str, name: str, field: str, value: Any) -> np.ndarray:
    if value is None:
        raise DataError(f"{where} ({name}): holds no {field!r}; Deep3DFaceRecon writes {' and '.join(FIELDS)}, three numbers each")
    try:
        numbers = np.asarray(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where} ({name}): {field} must be three numbers ({error})") from error
    if numbers.shape != (3,) or not all(math.isfinite(v) for v in numbers):
        raise DataError(f"{where} ({name}): {field} must be three finite numbers, got {numbers.tolist()[:6]}")
    return numbers


def _npy(path: Path, key: str, data: bytes) -> np.ndarray:
    try:
        array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, TypeError, SyntaxError, OSError, EOFError, KeyError, MemoryError) as error:
        raise DataError(f"{path}: {key} is no readable array without pickles ({error})") from error
    return array


def _npz(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    archive = Archive(path)
    content = {key: _npy(path, key, archive.read(f"{key}.npy")) for key in ("name", *FIELDS) if f"{key}.npy" in archive.names()}
    counts = {key: len(content[key]) if key in content and content[key].ndim else None for key in ("name", *FIELDS)}
    if len(set(counts.values())) != 1 or None in counts.values():
        raise DataError(f"{path}: must hold name [n], angle [n, 3] and trans [n, 3]; their lengths are {counts}")
    names = [str(name) for name in content["name"]]
    return _unique(path, [(name, {field: content[field][row] for field in FIELDS}) for row, name in enumerate(names)])


def _json(path: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    try:
        pairs: Any = json.loads(path.read_bytes(), object_pairs_hook=lambda pairs: pairs)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: is no readable JSON ({error})") from error
    if not isinstance(pairs, list) or not all(isinstance(p, tuple) and isinstance(p[1], list) for p in pairs):
        raise DataError(f'{path}: must be {{NAME: {{"angle": [3], "trans": [3]}}}}')
    return _unique(path, [(name, {k: v for k, v in value if k in FIELDS} if _is_object(value) else {}) for name, value in pairs])


def _is_object(value: list[Any]) -> bool:
    return all(isinstance(item, tuple) for item in value)


def _unique(path: Path, entries: list[tuple[str, dict[str, Any]]]) -> dict[str, tuple[str, dict[str, Any]]]:
    poses: dict[str, tuple[str, dict[str, Any]]] = {}
    for index, (name, fields) in enumerate(entries):
        if name in poses:
            raise DataError(f"{path}, entry {index + 1}: {name!r} stands twice")
        poses[name] = (f"{path}, entry {index + 1}", fields)
    return poses
