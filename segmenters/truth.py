"""The `truth` segmenter: hands out the stored labels of data set images, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from ..core.classes import CLASS_NAMES
from ..core.errors import PriorzooError
from ..core.registry import register_segmenter
from ..core.scene import Segmentation
from ..data.truth import ImageTruth
from .base import Segmenter


def one_hot_segmentation(labels: Tensor) -> Segmentation:
    """Return labels [B,H,W] (ids of ``core.classes``) as probabilities that are 0 or 1.

    >>> import torch
    >>> one_hot_segmentation(torch.tensor([[[0, 1]]])).mask("skin").tolist()
    [[[[False, True]]]]
    """
    hot = functional.one_hot(labels.long(), len(CLASS_NAMES)).permute(0, 3, 1, 2).float()
    return Segmentation(hot.contiguous(), CLASS_NAMES)


@register_segmenter("truth")
class TruthSegmenter(Segmenter):
    """Stored labels of a heads data set, by image name; for tests and for training other segmenters.

    ``data``: the truth file of a heads data set, ``OUT.truth.zip``. Raises DataError when it cannot be read.
    """

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.names = CLASS_NAMES
        self.truth = ImageTruth(data)

    @classmethod
    def reads_generated_images(cls) -> bool:
        """It cannot: it knows images by name, not by what they show."""
        return False

    @classmethod
    def class_names(cls, **options: Any) -> tuple[str, ...]:
        """Return the names of ``core.classes``."""
        return CLASS_NAMES

    def segment_named(self, names: Sequence[str]) -> Segmentation:
        """Return the segmentation [B,19,H,W] of the images of these names; raises DataError with the nearest name."""
        return one_hot_segmentation(self.truth[list(names)].labels)

    def segment(self, image: Tensor) -> Segmentation:
        """Refuse: raises PriorzooError."""
        raise PriorzooError(
            "segmenter 'truth' hands out stored labels by image name (segment_named) and cannot read an image; "
            "for generated images use 'unet' or another segmenter"
        )
