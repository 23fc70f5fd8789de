"""Background separation: every ray should end in the foreground or in the background, not half in each (BallGAN)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.registry import register_prior
from ..core.scene import Scene
from ..core.streams import Stream
from ..rendering.selection import as_real
from .base import Prior, PriorResult


def background_separation(transmittance: Tensor) -> Tensor:
    """Mean distance of the rays' transmittance from 0 or 1, whichever is nearer.

    L_b = mean_rays min(T, 1 - T) (BallGAN, Shin et al. 2023: the background loss; a sum in the paper, a mean in its code).

    Args: transmittance T [B,1,h,w] or [B,R] in [0,1], behind the foreground. Returns [B], in [0, 0.5].

    >>> background_separation(torch.tensor([[0.0, 1.0, 0.25, 0.75]])).tolist()
    [0.125]
    """
    rays = as_real(transmittance).flatten(1)
    return torch.minimum(rays, 1.0 - rays).mean(dim=1)


@register_prior("background_separation")
class BackgroundSeparation(Prior):
    """Background separation: rays should be opaque or empty.

    L_b = mean_rays min(T, 1 - T), T [B,1,h,w] the background's transmittance (BallGAN, Shin et al. 2023). Pushes T below one half to 0
    and above it to 1, with a constant force. Without a background behind the foreground it makes silhouettes hard all the same.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, background_transmittance=torch.full((1, 1, 2, 2), 0.25))
    >>> BackgroundSeparation()(scene, fixed_streams(0, 1)("separation")).value.tolist()
    [0.25]
    """

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """The background's transmittance."""
        return frozenset({"background_transmittance"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; draws nothing from ``stream``."""
        transmittance: Tensor = scene.background_transmittance
        with torch.autocast(transmittance.device.type, enabled=False):
            value = background_separation(transmittance)
        far = torch.minimum(transmittance, 1.0 - transmittance).detach()
        return PriorResult(value, pixels=torch.full_like(value, transmittance[0].numel()), heatmap=far)
