"""Coverage: at least so much of an image should be foreground, and so much background (VoxGRAF)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.options import check_number
from ..core.registry import register_prior
from ..core.scene import Scene
from ..core.streams import Stream
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult


def coverage(opacity: Tensor, *, foreground: float = 0.4, background: float = 0.1) -> Tensor:
    """How much of the image lacks to the wanted shares.

    L_b = max(0, foreground - mean a) + max(0, background - mean (1 - a)) (VoxGRAF, Schwarz et al. 2022, its code).

    Args: opacity a [B,1,h,w] or [B,R] in [0,1]; the least mean opacity and transmittance, in [0,1]. Returns [B].

    >>> round(coverage(torch.full((1, 4), 0.1)).item(), 4)
    0.3
    """
    mean = as_real(opacity).flatten(1).mean(dim=1)
    return (foreground - mean).clamp_min(0.0) + (background - (1.0 - mean)).clamp_min(0.0)


@register_prior("coverage")
class Coverage(FixedPrior):
    """Coverage: keeps the foreground from vanishing and from filling the image.

    L_b = max(0, ``foreground`` - mean a) + max(0, ``background`` - mean (1 - a)), a = opacity [B,1,h,w] (VoxGRAF, Schwarz et al. 2022).

    Options:
        foreground: least mean opacity of an image, in [0, 1]. background: least mean transmittance, in [0, 1].

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, opacity=torch.full((1, 1, 2, 2), 0.5))
    >>> Coverage()(scene, fixed_streams(0, 1)("coverage")).value.tolist()
    [0.0]
    """

    def __init__(self, *, foreground: float = 0.4, background: float = 0.1) -> None:
        super().__init__()
        check_number(self.registry_name, "foreground", foreground, least=0.0, most=1.0)
        check_number(self.registry_name, "background", background, least=0.0, most=1.0)
        self.foreground, self.background = foreground, background

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Opacity."""
        return frozenset({"opacity"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; draws nothing from ``stream``."""
        with torch.autocast(scene.opacity.device.type, enabled=False):
            value = coverage(scene.opacity, foreground=self.foreground, background=self.background)
        return PriorResult(value, pixels=torch.full_like(value, scene.opacity[0].numel()).detach())
