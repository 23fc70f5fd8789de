"""Broken camera files, each refused for its own, asserted reason."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from camera_file_writers import IDENTITY, binary_cameras, binary_images, nerf, poses, write_colmap_text, write_json
from priorzoo.core.errors import DataError
from priorzoo.data.camera_files.formats import read_cameras


def colmap_with(folder: Path, *, camera: str | None = None, change: Callable[[str], str] = str) -> Path:
    write_colmap_text(folder, poses(3), camera or "1 PINHOLE 640 480 500 510 322 239")
    (folder / "images.txt").write_text(change((folder / "images.txt").read_text()))
    return folder


def binary_with(folder: Path, cameras: bytes | None = None, images: bytes | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(binary_cameras() if cameras is None else cameras)
    (folder / "images.bin").write_bytes(binary_images(poses(3)) if images is None else images)
    return folder


def nerf_file(folder: Path, **frame: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = nerf(
        [{"file_path": "a", "transform_matrix": IDENTITY}, {"file_path": "b", "transform_matrix": IDENTITY, **frame}], fl_x=10, w=8, h=8
    )
    return write_json(folder / "transforms.json", content)


def mat_folder(folder: Path, data: bytes | dict[str, Any]) -> Path:
    from scipy.io import savemat

    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(data, bytes):
        (folder / "a.mat").write_bytes(data)
    else:
        savemat(folder / "a.mat", data)
    return folder


def mat_bytes(**options: bool) -> bytes:
    from scipy.io import savemat

    file = io.BytesIO()
    savemat(file, THREE, **options)
    return file.getvalue()


def npz_file(folder: Path, **arrays: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "poses.npz", **arrays)
    return folder / "poses.npz"


def text_file(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def two_formats(folder: Path) -> Path:
    nerf_file(folder)
    return text_file(folder, "dataset.json", "{}").parent


THREE = {"angle": [[0, 0, 0]], "trans": [[0, 0, 0]]}
BROKEN: dict[str, tuple[Callable[[Path], Path], str]] = {
    "colmap: OPENCV": (lambda f: colmap_with(f, camera="1 OPENCV 640 480 5 5 3 2 0.1 0 0 0"), r"cameras\.txt, line 2: model OPENCV.*undistort"),
    "colmap: k": (lambda f: colmap_with(f, camera="1 SIMPLE_RADIAL 640 480 5 3 2 0.01"), r"SIMPLE_RADIAL with k = 0\.01: undistort"),
    "colmap: unknown model": (lambda f: colmap_with(f, camera="1 PINHOL 640 480 5 5 3 2"), "unknown camera model 'PINHOL', did you mean 'PINHOLE'"),
    "colmap: few parameters": (lambda f: colmap_with(f, camera="1 PINHOLE 640 480 5 5 3"), "PINHOLE has 4 parameters, got 3"),
    "colmap: camera words": (lambda f: colmap_with(f, camera="one PINHOLE 640 480"), "expected CAMERA_ID MODEL WIDTH"),
    "colmap: camera twice": (lambda f: colmap_with(f, camera="1 PINHOLE 8 8 5 5 3 2\n1 PINHOLE 8 8 5 5 3 2"), r"line 3: camera 1 stands twice"),
    "colmap: nan": (lambda f: colmap_with(f, camera="1 PINHOLE 640 480 nan 5 3 2"), "is no camera"),
    "colmap: another camera": (lambda f: colmap_with(f, camera="2 PINHOLE 8 8 5 5 3 2"), r"line 2 \(a picture 0\.jpg\): camera 1 is not in"),
    "colmap: no points line": (
        lambda f: colmap_with(f, change=lambda t: "\n".join(line for line in t.splitlines() if line and not line.startswith("1.5"))),
        r"images\.txt, line 3: expected the points of 'a picture 0\.jpg'",
    ),
    "colmap: pose words": (lambda f: colmap_with(f, change=lambda t: t + "9 1 0 0 0 0 0\n"), "expected IMAGE_ID QW"),
    "colmap: quaternion": (lambda f: colmap_with(f, change=lambda t: t + "9 2 0 0 0 0 0 0 1 z.jpg\n\n"), r"\(z\.jpg\): the quaternion's length is 2, not 1"),
    "colmap: pose nan": (lambda f: colmap_with(f, change=lambda t: t + "9 1 0 0 0 nan 0 0 1 z.jpg\n\n"), r"\(z\.jpg\): the pose holds a number that is not finite"),
    "colmap: no images": (lambda f: text_file(f, "cameras.txt", "").parent, r"holds no images\.txt"),
    "colmap: empty": (lambda f: colmap_with(f, change=lambda t: ""), "holds no camera"),
    "binary: cut": (lambda f: binary_with(f, images=binary_images(poses(3))[:-30]), r"images\.bin: ends within image 3 of 3, at byte"),
    "binary: cut in a name": (lambda f: binary_with(f, images=binary_images(poses(1))[:80]), r"images\.bin: ends within image 1 of 1"),
    "binary: cut cameras": (lambda f: binary_with(f, cameras=binary_cameras()[:-4]), r"cameras\.bin: ends within camera 1 of 1"),
    "binary: huge count": (lambda f: binary_with(f, images=struct.pack("<Q", 1 << 60)), r"ends within image 1 of 1152921504606846976"),
    "binary: huge points": (lambda f: binary_with(f, images=binary_images(poses(1))[:-8] + struct.pack("<Q", 1 << 61)), "ends within image 1"),
    "binary: too long": (lambda f: binary_with(f, images=binary_images(poses(3)) + b"\0" * 5), "5 bytes are left over"),
    "binary: unknown model": (lambda f: binary_with(f, cameras=binary_cameras(99)), "camera 1 of 1: unknown camera model number 99"),
    "binary: distorted": (lambda f: binary_with(f, cameras=binary_cameras(3, (5, 3, 2, 0.1, 0.1))), "model RADIAL has lens distortion: undistort"),
    "binary: empty file": (lambda f: binary_with(f, cameras=b""), "ends within the number of cameras"),
    "nerf: k1": (lambda f: nerf_file(f, k1=0.1), r"transforms\.json, frame 2 \(b\): camera model PINHOLE with k1 = 0\.1.*undistort"),
    "nerf: fisheye": (lambda f: nerf_file(f, camera_model="OPENCV_FISHEYE"), "camera model OPENCV_FISHEYE"),
    "nerf: matrix shape": (lambda f: nerf_file(f, transform_matrix=[[1, 0, 0]]), r"frame 2 \(b\): transform_matrix must hold 4 x 4 numbers, got 1 x 3"),
    "nerf: matrix words": (lambda f: nerf_file(f, transform_matrix=[["a"] * 4] * 4), "transform_matrix must hold 4 x 4 numbers"),
    "nerf: no name": (lambda f: nerf_file(f, file_path=None), "frame 2: has no file_path"),
    "nerf: focal text": (lambda f: nerf_file(f, fl_x="long"), "fl_x must be a finite number, got 'long'"),
    "nerf: focal nan": (lambda f: nerf_file(f, fl_x=float("nan")), "fl_x must be a finite number, got nan"),
    "nerf: no focal": (
        lambda f: text_file(f, "t.json", json.dumps(nerf([{"file_path": "a", "transform_matrix": IDENTITY}]))), "has no focal length",
    ),
    "nerf: no middle": (
        lambda f: text_file(f, "t.json", json.dumps(nerf([{"file_path": "a", "transform_matrix": IDENTITY}], fl_x=9))), "needs w and h",
    ),
    "nerf: no list": (lambda f: text_file(f, "transforms.json", '{"frames": 3}'), "holds no list of frames"),
    "nerf: no frames": (lambda f: text_file(f, "transforms.json", '{"frames": []}'), "holds no camera"),
    "eg3d: a class": (lambda f: text_file(f, "dataset.json", '{"labels": [["a.png", 3]]}'), "'a.png' must be 25 numbers, got int, as of a class"),
    "eg3d: short": (lambda f: text_file(f, "dataset.json", '{"labels": [["a.png", [1, 2]]]}'), "25 numbers, got 2 values"),
    "eg3d: null": (lambda f: text_file(f, "dataset.json", '{"labels": null}'), "has no labels.*priorzoo data pack"),
    "deep3d: no field": (lambda f: mat_folder(f, {"angle": [[0, 0, 0]]}), r"a\.mat \(a\): holds no 'trans'"),
    "deep3d: two numbers": (lambda f: mat_folder(f, {**THREE, "angle": [[0, 0]]}), "angle must be three finite numbers, got"),
    "deep3d: nan": (lambda f: mat_folder(f, {**THREE, "trans": [[0, float("nan"), 0]]}), "trans must be three finite numbers"),
    "deep3d: damaged": (lambda f: mat_folder(f, b"MATLAB 5.0" + b"\7" * 150), r"a\.mat: is no readable \.mat file"),
    "deep3d: cut": (lambda f: mat_folder(f, mat_bytes()[:-9]), r"a\.mat: is no readable \.mat file \(ends within an element\)"),
    "deep3d: cut when packed": (lambda f: mat_folder(f, mat_bytes(do_compression=True)[:-9] + b"\0" * 9), r"is no readable \.mat file \(.*(cut short|incorrect data check)"),
    "deep3d: MATLAB 7.3": (lambda f: mat_folder(f, b"MATLAB 7.3 MAT-file" + b" " * 200), r"a\.mat: is a MATLAB 7\.3 file"),
    "deep3d: wrong shape": (lambda f: mat_folder(f, mat_bytes().replace(b"\1\0\0\0\3\0\0\0", b"\1\0\0\0\4\0\0\0", 1)), r"angle holds 3 numbers, its shape is \[1, 4\]"),
    "deep3d: npz lengths": (lambda f: npz_file(f, name=np.array(["a"]), angle=np.zeros((2, 3)), trans=np.zeros((1, 3))), "their lengths are"),
    "deep3d: npz pickles": (lambda f: npz_file(f, name=np.array(["a"], dtype=object), **{k: np.zeros((1, 3)) for k in THREE}), r"poses\.npz: name is no readable array without pickles"),
    "deep3d: no npz": (lambda f: text_file(f, "poses.npz", "PK"), r"poses\.npz: not a readable zip"),
    "deep3d: npz twice": (lambda f: npz_file(f, name=np.array(["a", "a"]), **{k: np.zeros((2, 3)) for k in THREE}), "entry 2: 'a' stands twice"),
    "deep3d: json twice": (lambda f: text_file(f, "p.json", '{"a": {"angle": [0]}, "b": {"angle": [0]}, "a": {"angle": [1]}}'), "'a' stands twice"),
    "unknown json": (lambda f: text_file(f, "p.json", '{"a": 1}'), "is in no known camera format; expected EG3D's"),
    "not json": (lambda f: text_file(f, "p.json", "{"), "is not JSON"),
    "unknown file": (lambda f: text_file(f, "p.csv", "1"), "is in no known camera format"),
    "two formats": (two_formats, r"several formats \(eg3d, nerf\): choose one with --cameras-format"),
    "nothing": (lambda f: f / "absent", "no such file or folder of cameras"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_camera_files_are_refused_for_their_own_reason(tmp_path: Path, name: str) -> None:
    make, message = BROKEN[name]
    with pytest.raises(DataError, match=f"(?s){message}"):
        read_cameras(make(tmp_path / "cameras"))
