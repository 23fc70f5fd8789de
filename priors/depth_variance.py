"""Depth variance: the weights of a ray should not spread along it (VoxGRAF)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.options import check_number
from ..core.registry import register_prior
from ..core.scene import Scene
from ..core.streams import Stream
from ..rendering.compositing import EMPTY
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult


def depth_variance(weights: Tensor, distances: Tensor, edges: Tensor, *, tolerance: float = 3.0) -> Tensor:
    """Variance of distance under each ray's weights, beyond what a surface of a few intervals has, times the ray's opacity.

    L_b = mean_rays sg(a) max(0, V - (tolerance * d)^2), V = sum_i v_i (t_i - sum_j v_j t_j)^2, v = w / a, a = sum w, d the ray's mean
    interval (VoxGRAF, Schwarz et al. 2022, its code: tolerance 3). Empty rays count 0.

    Args: weights, distances t [B,R,S], edges [B,R,S+1], world units. Returns [B], in squared world units.

    >>> depth_variance(torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[0.0, 2.0, 4.0]]]), tolerance=0.0).item()
    1.0
    """
    weights, distances, edges = as_real(weights), as_real(distances.detach()), as_real(edges.detach())
    opacity = weights.sum(dim=-1)
    full = opacity > EMPTY
    share = weights / torch.where(full, opacity, 1.0)[..., None]
    mean = (share * distances).sum(dim=-1, keepdim=True)
    variance = (share * (distances - mean).square()).sum(dim=-1)
    interval = (edges[..., -1] - edges[..., 0]) / weights.shape[-1]
    excess = (variance - (tolerance * interval).square()).clamp_min(0.0)
    return torch.where(full, excess * opacity.detach(), 0.0).mean(dim=1)


@register_prior("depth_variance")
class DepthVariance(FixedPrior):
    """Depth variance: a ray should meet one surface, not a cloud.

    L_b = mean_rays sg(a) max(0, V - (``tolerance`` d)^2), V the variance of distance under the ray's weights, a its opacity, d its mean
    interval (VoxGRAF, Schwarz et al. 2022). Reads weights, distances and edges.

    Options:
        tolerance: spread, in intervals, that costs nothing; a surface cannot be thinner than its samples.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, weights=torch.tensor([[[0.0, 1.0]]]), distances=torch.tensor([[[1.0, 3.0]]]),
    ...               edges=torch.tensor([[[0.0, 2.0, 4.0]]]))
    >>> DepthVariance()(scene, fixed_streams(0, 1)("variance")).value.tolist()
    [0.0]
    """

    def __init__(self, *, tolerance: float = 3.0) -> None:
        super().__init__()
        check_number(self.registry_name, "tolerance", tolerance, least=0.0)
        self.tolerance = tolerance

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Weights, distances and edges."""
        return frozenset({"weights", "distances", "edges"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; draws nothing from ``stream``."""
        with torch.autocast(scene.weights.device.type, enabled=False):
            value = depth_variance(scene.weights, scene.distances, scene.edges, tolerance=self.tolerance)
        return PriorResult(value, pixels=torch.full_like(value, scene.weights.shape[1]).detach())
