"""The small network that turns plane features into raw density and colour features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import FullyConnected


class Decoder(nn.Module):
    """Mean over planes, linear, softplus, linear; channel 0 is the raw density, the others colours.

    ``density_gain`` multiplies the raw density: 1 as published; about 10 lets a tiny decoder make opaque surfaces.
    """

    def __init__(
        self, in_features: int, hidden: int, out_features: int, *, lr_multiplier: float = 1.0, density_gain: float = 1.0
    ) -> None:
        super().__init__()
        self.density_gain = density_gain
        self.net = nn.Sequential(
            FullyConnected(in_features, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + out_features, lr_multiplier=lr_multiplier),
        )

    def forward(self, features: Tensor, *, colours: bool = True) -> tuple[Tensor, Tensor | None]:
        """Raw density [B,N] and colours [B,C,N] in (-0.001, 1.001) of plane features [B,3,F,N].

        The mean over planes is part of the first matrix product: its weights stand side by side, divided by three.
        """
        first, last = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected) and isinstance(last, FullyConnected)
        batch, planes = features.shape[:2]
        weight = (first.weight * (first.weight_gain / planes)).repeat(1, planes).expand(batch, -1, -1)
        hidden = torch.baddbmm((first.bias * first.bias_gain)[:, None], weight, features.flatten(1, 2))
        hidden = F.softplus(hidden)
        gains = self._output_gains(last)
        rows = slice(None) if colours else slice(0, 1)
        weight, bias = (last.weight * gains[:, None] * last.weight_gain)[rows], (last.bias * gains * last.bias_gain)[rows]
        out = torch.baddbmm(bias[:, None], weight.expand(batch, -1, -1), hidden)
        if not colours:
            return out[:, 0], None
        return out[:, 0], torch.sigmoid(out[:, 1:]) * 1.002 - 0.001

    def _output_gains(self, last: FullyConnected) -> Tensor:
        gains = torch.ones_like(last.bias)
        gains[0] = self.density_gain
        return gains
