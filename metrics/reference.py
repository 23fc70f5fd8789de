"""What generated heads are compared with: held-out heads with their true buffers, from two neighbouring views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import DataError
from ..data.dataset import Dataset
from ..data.truth import ImageTruth
from ..shapes.head_render import render_heads
from .geometry import turned
from .images import from_bytes
from .shapes import NEIGHBOUR_ANGLE, Truth

FRONTAL = 0.5  # radians: shapes are measured from views that see both eyes


class RealImages(Protocol):
    """Images with camera labels: what generated images are compared with.

    ``fingerprint`` changes with any of their files, and costs little.
    """

    labels: Tensor
    resolution: int

    def __len__(self) -> int: ...

    def fingerprint(self) -> str: ...

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]: ...


@dataclass
class EvaluationData:
    """``real``: the images that generated ones are compared with, and whose cameras they take; not mirrored.

    ``held_out``, ``truth``: paths of the held-out images and their truth, None where shapes have no truth.
    """

    real: RealImages
    held_out: Path | None = None
    truth: Path | None = None


def read_held_out(images: str | Path, truth: str | Path, *, heads: int) -> Truth:
    """Held-out heads and their truth: one image of each identity, the first, for at most ``heads`` identities.

    Raises DataError when an image has no truth, or there is no held-out image.
    """
    return _read(images, truth, heads, first_only=True)


def read_true_heads(images: str | Path, truth: str | Path, *, heads: int) -> Truth:
    """At most ``heads`` held-out images from near-frontal views with their truth, and their truth from a neighbouring
    view.

    First images of identities come first; second ones fill up. The neighbouring view is rendered anew from the heads'
    parameters, with a yaw ``NEIGHBOUR_ANGLE`` further.
    """
    return _read(images, truth, heads, first_only=False)


def _read(images: str | Path, truth: str | Path, heads: int, *, first_only: bool) -> Truth:
    dataset, reader = Dataset(images), ImageTruth(truth)
    chosen = _chosen(dataset, reader, first_only)[:heads]
    if not chosen:
        raise DataError(f"{images}: no held-out image that {reader.path} knows the truth of")
    places = {name: index for index, name in enumerate(dataset.names)}
    pixels, _ = dataset.batch([places[name] for name in chosen])
    true = reader[chosen]
    out = Truth(from_bytes(pixels), true.camera, true.depth, true.normals, true.labels.long())
    if not first_only:
        other = turned(true.camera, NEIGHBOUR_ANGLE)
        made = render_heads(true.parameters, other, true.depth.shape[-1])
        out.other = Truth(made.rgb * 2 - 1, other, made.depth, made.normals, made.labels.long())
    return out


def _chosen(dataset: Dataset, reader: ImageTruth, first_only: bool) -> list[str]:
    names = [name for name in reader.names("held_out") if name in set(dataset.names)]
    first: dict[int, str] = {}
    for name in names:
        first.setdefault(reader.record(name)["head"], name)
    if first_only:
        return list(first.values())
    leading = set(first.values())
    ordered = [*first.values(), *(name for name in names if name not in leading)]
    frontal = reader.camera(ordered).view_angle <= FRONTAL
    return [name for name, kept in zip(ordered, frontal.tolist(), strict=True) if kept]


def frontal_labels(labels: Tensor, count: int) -> Tensor:
    """The first ``count`` near-frontal camera labels [N,25], repeated where there are fewer; any if none is."""
    frontal = labels[Camera.from_label(labels).view_angle <= FRONTAL]
    kept = frontal if len(frontal) else labels
    return kept[torch.arange(count) % len(kept)]
