"""What is true of the images of a heads data set: depth, normals, labels, camera and parameters, by image name."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import DataError, did_you_mean
from ..shapes.head_parameters import HeadParameters
from .archive import Archive

TRUTH_VERSION = 1
# Depth is kept as 16-bit steps of 3e-5 over this range of world units: an error of at most 1.6e-5. 0 means no surface.
DEPTH_NEAR, DEPTH_FAR = 1.8, 3.8
_DEPTH_STEP = (DEPTH_FAR - DEPTH_NEAR) / 65534
_NORMAL_STEP = 1 / 32767


def encode_truth(depth: Tensor, normals: Tensor, labels: Tensor) -> bytes:
    """Pack one image's truth: depth [1, H, W] (inf: no surface), normals [3, H, W], labels [H, W] uint8."""
    hit = torch.isfinite(depth[0])
    if bool(hit.any()):
        low, high = float(depth[0][hit].min()), float(depth[0][hit].max())
        if low < DEPTH_NEAR or high > DEPTH_FAR:
            raise DataError(f"depth {low:.3f} ... {high:.3f} leaves the range {DEPTH_NEAR} ... {DEPTH_FAR} of truth files")
    steps = ((depth[0].double().nan_to_num(posinf=DEPTH_NEAR) - DEPTH_NEAR) / _DEPTH_STEP).round() + 1
    packed = np.where(hit.numpy(), steps.numpy(), 0).astype(np.uint16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, depth=packed, normals=(normals / _NORMAL_STEP).round().to(torch.int16).numpy(), labels=labels.numpy())
    return buffer.getvalue()


@dataclass(frozen=True)
class Truth:
    """Truth of B images.

    depth [B,1,H,W] along the unit ray in world units (inf: no surface), normals [B,3,H,W] in the world frame
    (0: no surface), labels [B,H,W] uint8 (core.classes), foreground [B,H,W] bool, camera, the heads' parameters.
    """

    depth: Tensor
    normals: Tensor
    labels: Tensor
    camera: Camera
    parameters: HeadParameters

    @property
    def foreground(self) -> Tensor:
        """Pixels that show the head."""
        return torch.isfinite(self.depth[:, 0])


class ImageTruth:
    """Reader of a truth file; may be shared by processes.

    Args:
        path: OUT.truth.zip.

    Raises:
        DataError: no such file, not a truth file, an unknown image name, a damaged entry.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._archive = Archive(self.path)
        if "truth.json" not in self._archive.names():
            raise DataError(f"{self.path}: holds no truth.json, so it is no truth file (expected something like heads.truth.zip)")
        try:
            head: dict[str, Any] = json.loads(self._archive.read("truth.json"))
            self.plan: dict[str, Any] = head["plan"]
            self.records: dict[str, dict[str, Any]] = {record["name"]: record for record in head["images"]}
            version = head["version"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path}: truth.json cannot be read ({error})") from error
        if version != TRUTH_VERSION:
            raise DataError(f"{self.path}: truth file of version {version}, this program reads {TRUTH_VERSION}; write it again")
        self._table: HeadParameters | None = None

    def __len__(self) -> int:
        return len(self.records)

    def names(self, split: str | None = None) -> list[str]:
        """Image names of one split, 'train' or 'held_out', or of both, in order."""
        if split not in (None, "train", "held_out"):
            raise DataError(f"{self.path}: split is 'train' or 'held_out', got {split!r}")
        return [name for name, record in self.records.items() if split in (None, record["split"])]

    def record(self, name: str) -> dict[str, Any]:
        """name, split, head (number), row (of the parameter table), yaw, pitch (radians), camera (25 numbers)."""
        if name not in self.records:
            raise DataError(f"{self.path}: knows no image {name!r}{did_you_mean(name, self.records)}")
        return self.records[name]

    def parameters(self, names: list[str]) -> HeadParameters:
        """The parameters of the heads that the images show."""
        if self._table is None:
            with np.load(io.BytesIO(self._archive.read("parameters.npz"))) as arrays:
                self._table = HeadParameters({key: torch.from_numpy(arrays[key]) for key in arrays.files})
        rows = torch.tensor([self.record(name)["row"] for name in names], dtype=torch.long)
        return HeadParameters({key: value[rows] for key, value in self._table.values.items()})

    def camera(self, names: list[str]) -> Camera:
        """The cameras of the images."""
        return Camera.from_label(torch.tensor([self.record(name)["camera"] for name in names], dtype=torch.float32))

    def __getitem__(self, names: str | list[str]) -> Truth:
        """The truth of one image or of several (as a batch)."""
        wanted = [names] if isinstance(names, str) else list(names)
        depth, normals, labels = zip(*(self._buffers(name) for name in wanted), strict=True)
        return Truth(torch.stack(depth), torch.stack(normals), torch.stack(labels), self.camera(wanted), self.parameters(wanted))

    def _buffers(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        self.record(name)
        entry = name.rsplit(".", 1)[0] + ".npz"
        try:
            with np.load(io.BytesIO(self._archive.read(entry))) as arrays:
                packed, normals, labels = arrays["depth"].astype(np.float64), arrays["normals"], arrays["labels"]
        except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{self.path}: entry {entry!r} is damaged ({error})") from error
        depth = np.where(packed > 0, DEPTH_NEAR + (packed - 1) * _DEPTH_STEP, np.inf)[None].astype(np.float32)
        return (
            torch.from_numpy(depth),
            torch.from_numpy(normals.astype(np.float32) * np.float32(_NORMAL_STEP)),
            torch.from_numpy(labels),
        )
