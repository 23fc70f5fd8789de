"""Is a data set fit for training? Counts, sanity of the camera labels, duplicates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import DataError
from .dataset import Dataset
from .eg3d_format import mirrored_from
from .mirror import mirror_problem

ORTHONORMAL_TOLERANCE = 1e-3
PRINCIPAL_TOLERANCE = 0.05


@dataclass(frozen=True)
class DataReport:
    """What `check_dataset` found. `problems` should stop a training, `remarks` are worth a look."""

    path: Path
    images: int
    resolution: int
    cameras: int
    focal: tuple[float, float]
    radius: tuple[float, float]
    yaw: tuple[float, float, float, float]  # mean, standard deviation, lowest, highest; radians
    pitch: tuple[float, float, float, float]
    field_of_view: tuple[float, float, float, float]  # horizontal, radians
    mirrored: int  # images that are mirror images of others
    duplicates: list[list[str]]
    about: dict[str, Any]  # how the set was made, where `priorzoo data pack` made it
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def view_angles(camera: Camera) -> tuple[Tensor, Tensor]:
    """Yaw and pitch [B] in radians of cameras that look at the origin: the inverse of Camera.looking_at_origin.

    >>> yaw, pitch = view_angles(Camera.looking_at_origin(torch.tensor([0.3]), torch.tensor([0.1])))
    >>> round(float(yaw), 4), round(float(pitch), 4)
    (0.3, 0.1)
    """
    x, y, z = camera.position.unbind(-1)
    return torch.atan2(x, z), torch.asin((y / camera.position.norm(dim=-1).clamp_min(1e-9)).clamp(-1, 1))


def field_of_view(camera: Camera) -> Tensor:
    """Horizontal field of view [B] in radians: 2 atan(1 / (2 fx)).

    >>> round(float(field_of_view(Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))).rad2deg()), 2)
    13.37
    """
    return 2 * torch.atan(0.5 / camera.intrinsics[:, 0, 0])


def label_problems(names: list[str], camera: Camera) -> list[str]:
    """Labels that are no cameras: rotation not orthonormal or mirrored, wrong last rows, an impossible focal length."""
    matrix, intrinsics = camera.cam2world.double(), camera.intrinsics.double()
    rotation = matrix[:, :3, :3]
    skewed = (rotation.transpose(1, 2) @ rotation - torch.eye(3, dtype=torch.float64)).abs().amax((1, 2))
    determinant = torch.linalg.det(rotation)
    last = (matrix[:, 3] - torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)).abs().amax(1)
    bottom = (intrinsics[:, 2] - torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)).abs().amax(1)
    focal = intrinsics[:, [0, 1], [0, 1]]
    tests = [
        (skewed > ORTHONORMAL_TOLERANCE, "rotation columns are not orthonormal (error {:.2g}, allowed 1e-3)", skewed),
        (
            (skewed <= ORTHONORMAL_TOLERANCE) & (determinant < 0),
            "rotation mirrors space: its determinant is {:.3g}, not +1",
            determinant,
        ),
        (last > 1e-6, "last row of cam2world is not 0 0 0 1 (off by {:.2g})", last),
        (bottom > 1e-6, "last row of the intrinsics is not 0 0 1 (off by {:.2g})", bottom),
        (focal.amin(1) <= 0, "focal length {:.3g} is not positive", focal.amin(1)),
        (
            focal.amax(1) > 50,
            "focal length {:.3g} is too long: intrinsics are divided by the image size",
            focal.amax(1),
        ),
    ]
    found = []
    for bad, text, value in tests:
        index = torch.nonzero(bad).flatten().tolist()
        if index:
            more = f" (and {len(index) - 1} more)" if len(index) > 1 else ""
            found.append(f"{names[index[0]]}: {text.format(float(value[index[0]]))}{more}")
    return found


def _remarks(camera: Camera, radius: Tensor, duplicates: list[list[str]], resolution: int) -> list[str]:
    remarks = []
    k = camera.intrinsics
    focal = k[:, 0, 0]
    if float(focal.max() - focal.min()) > 0.01 * float(focal.mean()):
        remarks.append(f"focal lengths spread from {float(focal.min()):.4f} to {float(focal.max()):.4f} image widths")
    if float((k[:, 0, 0] - k[:, 1, 1]).abs().max()) > 0.01 * float(focal.mean()):
        remarks.append("horizontal and vertical focal lengths differ by more than 1 %: pixels are not square")
    off = (k[:, :2, 2] - 0.5).abs().amax()
    if float(off) > PRINCIPAL_TOLERANCE:
        remarks.append(f"a principal point lies {float(off):.3f} image widths off the middle")
    aim = -(camera.forward_axis * torch.nn.functional.normalize(camera.position, dim=-1)).sum(-1)
    away = int((aim < 0.9).sum())
    if away:
        remarks.append(f"{away} cameras do not look towards the origin (axes must be OpenCV's: x right, y down, z forward)")
    if float(radius.max() - radius.min()) > 0.5 * float(radius.mean()):
        remarks.append(f"camera distances spread from {float(radius.min()):.2f} to {float(radius.max()):.2f}")
    if duplicates:
        remarks.append(f"{sum(len(d) - 1 for d in duplicates)} images are copies, e.g. {duplicates[0][0]} and {duplicates[0][1]}")
    if resolution & (resolution - 1):
        remarks.append(f"{resolution} pixels a side is no power of two")
    return remarks


def _spread(value: Tensor) -> tuple[float, float, float, float]:
    return float(value.mean()), float(value.std(correction=0)), float(value.min()), float(value.max())


def check_dataset(path: str | Path) -> tuple[DataReport, Dataset]:
    """Open and validate a data set, then judge its labels and look for copies.

    Raises:
        DataError: when the data set cannot be read at all (see Dataset.validate).
    """
    data = Dataset(path)
    data.validate()
    camera = Camera.from_label(data.labels)
    seen: dict[bytes, list[str]] = {}
    for name in data.names:
        seen.setdefault(hashlib.blake2b(data.file_bytes(name), digest_size=16).digest(), []).append(name)
    duplicates = [names for names in seen.values() if len(names) > 1]
    radius = camera.position.norm(dim=-1)
    yaw, pitch = view_angles(camera)
    focal = camera.intrinsics[:, 0, 0]
    unpaired = mirror_problem(data.names, data.labels)
    report = DataReport(
        path=Path(path), images=len(data), resolution=data.stored_resolution,
        cameras=len(torch.unique(data.labels, dim=0)),
        focal=(float(focal.min()), float(focal.max())), radius=(float(radius.min()), float(radius.max())),
        yaw=_spread(yaw), pitch=_spread(pitch), field_of_view=_spread(field_of_view(camera)),
        mirrored=sum(mirrored_from(name) is not None for name in data.names), duplicates=duplicates, about=data.about,
        problems=label_problems(data.names, camera) + ([unpaired] if unpaired else []),
        remarks=_remarks(camera, radius, duplicates, data.stored_resolution),
    )  # fmt: skip
    return report, data


def require_sound(report: DataReport) -> None:
    """Raise DataError with the first problem of a report, if it has any."""
    if report.problems:
        more = f" ({len(report.problems)} kinds of problem in all)" if len(report.problems) > 1 else ""
        raise DataError(f"{report.path}: {report.problems[0]}{more}")
