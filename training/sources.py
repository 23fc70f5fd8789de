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

if TYPE_CHECKING:
    from ..core.recipe import Recipe
    from ..data.dataset import Dataset


class TrainingImages:
    """The images that train, with their camera labels; ``mirror`` adds every image's mirror image, its camera mirrored too."""

    def __init__(self, dataset: Dataset, mirror: bool) -> None:
        self._dataset = dataset
        self._originals = len(dataset)
        self.labels: Tensor = dataset.labels
        if mirror:
            self.labels = torch.cat([self.labels, Camera.from_label(self.labels).mirrored().label()])

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self._dataset.resolution

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Images uint8 [B,3,H,W] and labels float32 [B,25]."""
        images, _ = self._dataset.batch([i % self._originals for i in indices])
        mirrored = torch.tensor([i >= self._originals for i in indices])
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images, self.labels[list(indices)]


@dataclass
class Sources:
    """``train``: the images that train; ``held_out`` and ``truth``: paths of what measures, None where there is nothing known."""

    train: TrainingImages
    held_out: Path | None
    truth: Path | None


def open_sources(recipe: Recipe, folder: Path, *, progress: bool = False) -> Sources:
    """Open the recipe's data; heads are generated once into ``folder`` and found there the next time.

    Raises DataError, naming the entry, before anything is trained.
    """
    from ..data.dataset import Dataset

    spec: Any = recipe.data
    if spec is None:
        raise DataError("the recipe names no data: add `data: {name: heads}` or `data: {name: eg3d, path: ...}`")
    if spec.name == "heads":
        train, held_out, truth = _heads(spec, folder)
    else:
        train, held_out, truth = Path(spec.path), spec.held_out, spec.truth
    dataset = Dataset(train)
    dataset.validate()
    return Sources(
        TrainingImages(dataset, getattr(spec, "mirror", False)),
        Path(held_out) if held_out else None,
        Path(truth) if truth else None,
    )


def _heads(spec: Any, folder: Path) -> tuple[Path, Path, Path]:
    from ..data.heads import write_heads

    plain = spec.model_dump()
    digest = hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=6).hexdigest()
    out = folder / f"heads-{digest}.zip"
    options = {k: v for k, v in plain.items() if k != "name"}
    truth, held_out = out.with_suffix(".truth.zip"), out.with_suffix(".held_out.zip")
    # The data set itself is written last: where it is, its companions are.
    if not (out.exists() and truth.exists()):
        write_heads(out, **options, overwrite=True, workers=os.cpu_count() or 1)
    return out, held_out, truth
