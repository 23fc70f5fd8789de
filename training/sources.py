"""The data of a run: opened, checked, and generated first where the recipe asks for heads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.camera import Camera
from ..core.errors import DataError
from ..shapes.head_render import RENDERER_VERSION
from .progress import Progress

if TYPE_CHECKING:
    from ..core.recipe import Recipe
    from ..data.dataset import Dataset


class TrainingImages:
    """The images that train, with their camera labels; ``mirror`` adds every image's mirror image, its camera mirrored too."""

    def __init__(self, dataset: Dataset, mirror: bool) -> None:
        self.stored = dataset  # without mirror images: what generated images are compared with
        self._originals = len(dataset)
        self.labels: Tensor = dataset.labels
        if mirror:
            self.labels = torch.cat([self.labels, Camera.from_label(self.labels).mirrored().label()])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self.stored.resolution

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B,3,H,W] and labels float32 [B,25]."""
        images, _ = self.stored.batch([i % self._originals for i in indices])
        mirrored = torch.tensor([i >= self._originals for i in indices])
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images, self.labels[list(indices)]


@dataclass
class Sources:
    """``train``: the images that train; ``held_out`` and ``truth``: paths of what measures, None where there is nothing known."""

    train: TrainingImages
    held_out: Path | None
    truth: Path | None


def open_sources(recipe: Recipe, folder: Path, *, progress: bool = False, check: bool = True) -> Sources:
    """Open the recipe's data; heads are generated once into ``folder`` and found there the next time.

    ``check`` reads the images first, for what would stop a training at its thousandth step.
    Raises DataError, naming the entry, before anything is trained.
    """
    from ..data.dataset import Dataset
    from ..data.eg3d_format import mirrored_from

    spec: Any = recipe.data
    if spec is None:
        raise DataError("the recipe names no data: add `data: {name: heads}` or `data: {name: eg3d, path: ...}`")
    if spec.name == "heads":
        train, held_out, truth = _heads(spec, folder, progress)
    else:
        train, held_out, truth = Path(spec.path), spec.held_out, spec.truth
    dataset = Dataset(train)
    if check:
        dataset.validate()
    made = recipe.backbone.options.get("image_resolution")
    if isinstance(made, int) and dataset.resolution != made:
        raise DataError(
            f"data {train}: images of {dataset.resolution} x {dataset.resolution} pixels, the backbone makes {made} x {made}"
            f" (`priorzoo data pack --resolution {made}` resizes a set)"
        )
    mirrored = next((name for name in dataset.names if mirrored_from(name)), None)
    if mirrored and getattr(spec, "mirror", False):
        raise DataError(f"data {train}: holds mirror images already, e.g. {mirrored!r}: set data.mirror to false")
    if held_out and spec.name != "heads" and (measured := Dataset(held_out)).resolution != dataset.resolution:
        raise DataError(f"data {held_out}: images of {measured.resolution} pixels a side, those that train have {dataset.resolution}")
    return Sources(
        TrainingImages(dataset, getattr(spec, "mirror", False)),
        Path(held_out) if held_out else None,
        Path(truth) if truth else None,
    )


def heads_digest(spec: Any) -> str:
    """Return what generated heads are kept under: their options and the version of what renders them."""
    plain = {**spec.model_dump(), "renderer": RENDERER_VERSION}
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=6).hexdigest()


def _heads(spec: Any, folder: Path, progress: bool) -> tuple[Path, Path | None, Path]:
    from ..data.heads import HeadsFiles, write_heads

    files = HeadsFiles.of(folder / f"heads-{heads_digest(spec)}.zip")
    options = {k: v for k, v in spec.model_dump().items() if k != "name"}
    held_out = files.held_out if spec.held_out else None
    if not all(path.exists() for path in (files.images, files.truth, held_out) if path is not None):
        total = spec.images + spec.held_out * spec.images_per_identity
        with Progress("heads", total, shown=progress) as bar:
            write_heads(files.images, **options, force=True, workers=os.cpu_count() or 1, progress=lambda done, _: bar.update(done))
    return files.images, held_out, files.truth
