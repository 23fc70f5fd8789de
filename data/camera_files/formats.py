"""Which format a camera file has, and its frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...core.camera import EG3D_FOCAL, EG3D_RADIUS
from ...core.errors import DataError
from ...core.options import check_choice
from ..archive import Archive
from ..eg3d_format import LABELS_FILE
from .colmap import read_colmap
from .deep3d import read_deep3d
from .eg3d_labels import read_eg3d_labels
from .frame import CameraFrame
from .nerf_json import read_nerf_json

FORMATS = ("eg3d", "colmap", "nerf", "deep3d")
NERF_FILE = "transforms.json"
COLMAP_PLACES = (".", "sparse/0", "sparse")  # where COLMAP and its undistorter leave a model
EXPECTED = (
    "expected EG3D's dataset.json, a folder with COLMAP's cameras and images (.txt or .bin), a NeRF-style transforms.json,"
    " or Deep3DFaceRecon's poses (a folder of .mat, .npz or .json)"
)


def _colmap_folder(path: Path) -> Path | None:
    if path.name in ("cameras.txt", "images.txt", "cameras.bin", "images.bin"):
        return path.parent
    found = (path / place for place in COLMAP_PLACES)
    return next((f for f in found if any((f / f"{k}.{e}").is_file() for k in ("cameras", "images") for e in ("txt", "bin"))), None)


def _json_format(path: Path) -> str:
    try:
        content: Any = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path}: is not JSON ({error})") from error
    keys: Any = content if isinstance(content, dict) else {}
    if "labels" in keys or "frames" in keys:
        return "eg3d" if "labels" in keys else "nerf"
    if keys and all(isinstance(value, dict) and "angle" in value for value in keys.values()):
        return "deep3d"
    raise DataError(f"{path}: is in no known camera format; {EXPECTED}")


def detect_format(path: Path) -> str:
    """One of FORMATS, by what is there.

    Raises:
        DataError: nothing there, nothing known, or more than one format in a folder.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of cameras")
    if path.is_dir():
        found = [
            name
            for name, there in (
                ("eg3d", (path / LABELS_FILE).is_file()),
                ("colmap", _colmap_folder(path) is not None),
                ("nerf", (path / NERF_FILE).is_file()),
                ("deep3d", next(path.rglob("*.mat"), None) is not None),
            )
            if there
        ]
        if len(found) > 1:
            raise DataError(f"{path}: holds cameras in several formats ({', '.join(found)}): choose one with --cameras-format")
        if found:
            return found[0]
    elif path.suffix.lower() == ".zip":
        return "eg3d"
    elif path.suffix.lower() == ".npz":
        return "deep3d"
    elif _colmap_folder(path) is not None:
        return "colmap"
    elif path.suffix.lower() == ".json":
        return _json_format(path)
    raise DataError(f"{path}: is in no known camera format; {EXPECTED}")


def read_cameras(
    path: str | Path, form: str = "auto", *, radius: float = EG3D_RADIUS, focal: float = EG3D_FOCAL
) -> tuple[str, list[CameraFrame]]:
    """The format of a camera file or folder, and its frames in the file's order.

    Args:
        path: file or folder; an EG3D data set (zip) gives its own labels.
        form: one of FORMATS, or "auto".
        radius: world units, focal: image widths; what "deep3d" puts in, whose files do not say.

    Raises:
        DataError: naming the file and the frame.
    """
    path = Path(path)
    check_choice("cameras", "format", form, ("auto", *FORMATS))
    found = detect_format(path) if form == "auto" else form
    if not path.exists():
        raise DataError(f"{path}: no such file or folder of cameras")
    try:
        frames = _frames(path, found, radius, focal)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not frames:
        raise DataError(f"{path}: holds no camera")
    return found, frames


def _frames(path: Path, form: str, radius: float, focal: float) -> list[CameraFrame]:
    if form == "colmap":
        return read_colmap(_colmap_folder(path) or path)
    if form == "deep3d":
        return read_deep3d(path, radius, focal)
    if form == "nerf":
        file = path / NERF_FILE if path.is_dir() else path
        return read_nerf_json(file, file.read_bytes())
    if path.is_dir() or path.suffix.lower() == ".zip":
        return read_eg3d_labels(path / LABELS_FILE, Archive(path).read(LABELS_FILE))
    return read_eg3d_labels(path, path.read_bytes())
