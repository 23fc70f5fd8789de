"""A background of one colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...core.errors import PriorzooError
from ...core.registry import register_background
from .base import Background


@register_background("colour")
class Colour(Background):
    """One colour behind everything, infinitely far.

    Options:
        rgb: red, green and blue in [0, 1]. Features beyond the third are the colour's mean (white is 1 in all, as EG3D's white_back).

    >>> features, distance = Colour(channels=4, rgb=(1.0, 0.5, 0.0))({}, torch.zeros(1, 2, 3), torch.zeros(1, 2, 3))
    >>> features[0, :, 0].tolist(), distance
    ([1.0, 0.5, 0.0, 0.5], None)
    """

    features: Tensor

    def __init__(self, *, channels: int, rgb: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        super().__init__()
        good = len(rgb) == 3 and all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1 for v in rgb)
        if not good:
            raise PriorzooError(f"background colour: rgb must be three numbers in [0, 1], got {list(rgb)!r}")
        values = [*map(float, rgb), *[sum(rgb) / 3.0] * (channels - 3)]
        self.register_buffer("features", torch.tensor(values[:channels]), persistent=False)

    def forward(self, latents: Mapping[str, Tensor], origins: Tensor, directions: Tensor) -> tuple[Tensor, None]:
        """The same features on every ray [B,R]."""
        return self.features.to(origins)[None, :, None].expand(len(origins), -1, origins.shape[1]), None
