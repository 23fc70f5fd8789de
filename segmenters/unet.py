"""The `unet` segmenter: a small network trained on procedural heads, shipped with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor
from torch.nn import functional

from ..core.classes import CLASS_NAMES
from ..core.registry import register_segmenter
from ..core.scene import Segmentation
from .base import Segmenter
from .network import SHIPPED, load_network, run_network

WEIGHTS = SHIPPED / "unet_heads" / "model.safetensors"


@register_segmenter("unet")
class UNetSegmenter(Segmenter):
    """Parses head images into the classes of ``core.classes`` by a small U-Net; frozen.

    ``weights``: a file of ``priorzoo train-segmenter``; None takes the shipped one, whose held-out IoU per class stands
    in the card beside it. ``reads``: the buffer it looks at. Raises CheckpointError when the file does not fit.

    >>> import torch
    >>> UNetSegmenter().segment(torch.zeros(1, 3, 64, 64)).probabilities.shape
    torch.Size([1, 19, 64, 64])
    """

    def __init__(self, weights: Path | None = None, reads: Literal["image", "image_raw"] = "image") -> None:
        super().__init__()
        self.names = CLASS_NAMES
        self.network, self.resolution = load_network(weights or WEIGHTS, CLASS_NAMES)

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Return the buffer it reads: the option ``reads``."""
        return frozenset({options.get("reads", "image")})

    @classmethod
    def class_names(cls, **options: Any) -> tuple[str, ...]:
        """Return the names of ``core.classes``."""
        return CLASS_NAMES

    def segment(self, image: Tensor) -> Segmentation:
        """Return probabilities [B,19,H,W], float32, detached; ``image`` [B,3,H,W], nominal [-1,1], of any size."""
        probabilities = run_network(self.network, image, self.resolution).softmax(dim=1)
        if probabilities.shape[2:] != image.shape[2:]:
            probabilities = functional.interpolate(
                probabilities, size=image.shape[2:], mode="bilinear", antialias=True, align_corners=False
            )
        return Segmentation(probabilities.contiguous(), CLASS_NAMES)
