"""Images and camera files as the tests write them: by the formats' public descriptions, with none of the readers' code."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from priorzoo.core.camera import Camera

IDENTITY = np.eye(4).tolist()
# Right (1,0,0), down (0,-1,0), forward (0,0,-1), standing at (0,0,2.7).
FRONTAL = np.array([[1.0, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 2.7], [0, 0, 0, 1]])
LABEL = [*FRONTAL.ravel().tolist(), 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]


def poses(count: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    yaw, pitch = torch.from_numpy(rng.uniform(-3, 3, count)), torch.from_numpy(rng.uniform(-1.2, 1.2, count))
    return Camera.looking_at_origin(yaw, pitch, radius=4.0).cam2world.numpy()


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Scalar first: the eigenvector of Bar-Itzhack's matrix; another way than the reader's inverse."""
    (a, b, c), (d, e, f), (g, h, i) = rotation
    matrix = np.array([
        [a - e - i, b + d, c + g, h - f], [b + d, e - a - i, f + h, c - g],
        [c + g, f + h, i - a - e, d - b], [h - f, c - g, d - b, a + e + i],
    ]) / 3  # fmt: skip
    x, y, z, w = np.linalg.eigh(matrix)[1][:, -1]
    return np.array([w, x, y, z])


def colmap_pose(cam2world: np.ndarray) -> list[float]:
    rotation = cam2world[:3, :3].T
    return [*quaternion(rotation), *(-rotation @ cam2world[:3, 3])]


def write_colmap_text(folder: Path, cam2world: np.ndarray, camera: str = "1 PINHOLE 640 480 500 510 322 239") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.txt").write_text(f"# Camera list\n{camera}\n")
    lines = ["# Image list with two lines of data per image:"]
    for index, matrix in enumerate(cam2world):
        lines.append(f"{index + 1} " + " ".join(repr(float(v)) for v in colmap_pose(matrix)) + f" 1 a picture {index}.jpg")
        lines.append("1.5 2.5 -1 10.0 20.0 7" if index % 2 else "")
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def binary_cameras(model: int = 1, parameters: tuple[float, ...] = (500, 510, 322, 239), number: int = 1) -> bytes:
    return struct.pack("<QIiQQ", 1, number, model, 640, 480) + struct.pack(f"<{len(parameters)}d", *parameters)


def binary_images(cam2world: np.ndarray, camera: int = 1) -> bytes:
    data = struct.pack("<Q", len(cam2world))
    for index, matrix in enumerate(cam2world):
        data += struct.pack("<I7dI", index + 1, *colmap_pose(matrix), camera) + f"a picture {index}.jpg".encode() + b"\0"
        points = index % 3
        data += struct.pack("<Q", points) + b"".join(struct.pack("<ddq", 1.0, 2.0, -1) for _ in range(points))
    return data


def write_colmap_binary(folder: Path, cam2world: np.ndarray) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.bin").write_bytes(binary_cameras())
    (folder / "images.bin").write_bytes(binary_images(cam2world))
    return folder


def nerf(frames: list[dict[str, Any]], **shared: Any) -> dict[str, Any]:
    return {**shared, "frames": frames}


def opengl(cam2world: np.ndarray) -> list[list[float]]:
    return (cam2world @ np.diag([1.0, -1.0, -1.0, 1.0])).tolist()


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def picture(width: int = 8, height: int = 8, seed: int = 0, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8).squeeze()


def save(path: Path, pixels: np.ndarray, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def folder(path: Path, count: int = 3, width: int = 8, height: int = 8) -> Path:
    for index in range(count):
        save(path / f"{index}.png", picture(width, height, index))
    return path


def labels(path: Path, count: int = 3, change: Callable[[list[Any]], list[Any]] = list) -> Path:
    yaw = torch.linspace(-0.4, 0.4, count)
    cameras = Camera.looking_at_origin(yaw, yaw / 3).label().tolist()
    return write_json(path, {"labels": change([[f"{i}.png", label] for i, label in enumerate(cameras)])})
