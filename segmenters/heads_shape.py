"""The `heads` estimator: depth and normals from one image of a head, by a small network trained on procedural heads."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional

from ..core.registry import register_estimator
from ..rendering.standardising import standardised
from .base import Estimator
from .network import SHIPPED, load_network, run_network

WEIGHTS = SHIPPED / "shape_heads" / "model.safetensors"
OUTPUTS = ("foreground", "depth", "normal_x", "normal_y", "normal_z")


@register_estimator("heads")
class HeadsEstimator(Estimator):
    """Estimates depth and normals of head images by a small U-Net; frozen.

    ``weights``: a file of ``priorzoo train-segmenter --target shape``; None takes the shipped one, whose held-out
    errors per region stand in the card beside it. Raises CheckpointError when the file does not fit.

    >>> import torch
    >>> depth, normals = HeadsEstimator().estimate(torch.zeros(1, 3, 64, 64))
    >>> depth.shape, normals.shape
    (torch.Size([1, 1, 64, 64]), torch.Size([1, 3, 64, 64]))
    """

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.network, self.resolution = load_network(weights or WEIGHTS, OUTPUTS)

    def estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return depth [B,1,H,W] and unit normals [B,3,H,W]; ``image`` [B,3,H,W], nominal [-1,1], of any size.

        Depth is along the ray, standardised over the foreground that the network itself finds (see ``foreground``),
        larger is farther, 0 elsewhere. Normals are in the camera's frame (OpenCV axes: x right, y down, z away from the
        camera), also outside the foreground, where they mean nothing.
        """
        maps = self._maps(image)
        normals = functional.normalize(maps[:, 2:5], dim=1, eps=1e-6)
        return standardised(maps[:, 1:2], maps[:, :1] > 0), normals

    def foreground(self, image: Tensor) -> Tensor:
        """Return the pixels [B,1,H,W] bool that the network takes for the head."""
        return self._maps(image)[:, :1] > 0

    def _maps(self, image: Tensor) -> Tensor:
        maps = run_network(self.network, image, self.resolution)
        if maps.shape[2:] != image.shape[2:]:
            maps = functional.interpolate(maps, size=image.shape[2:], mode="bilinear", antialias=True, align_corners=False)
        return maps.contiguous()
