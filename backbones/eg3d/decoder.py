"""The small network that turns plane features into raw density and colour features."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..stylegan2.layers import FullyConnected

COLOUR_SCALE, COLOUR_OFFSET = 1.002, -0.001
"""Colours are sigmoid(x) * 1.002 - 0.001, so that black and white can be reached (Mip-NeRF's padding)."""


class Decoder(nn.Module):
    """Mean over planes, linear, softplus, linear; channel 0 is the raw density, the others colours.

    ``density_gain`` multiplies the raw density: 1 as published; about 10 lets a tiny decoder make opaque surfaces.
    """

    def __init__(self, in_features: int, hidden: int, out_features: int, *, lr_multiplier: float = 1.0, density_gain: float = 1.0) -> None:
        super().__init__()
        self.density_gain = density_gain
        self.net = nn.Sequential(
            FullyConnected(in_features, hidden, lr_multiplier=lr_multiplier),
            nn.Softplus(),
            FullyConnected(hidden, 1 + out_features, lr_multiplier=lr_multiplier),
        )

    def layers(self) -> tuple[FullyConnected, Tensor, Tensor]:
        """The first layer, and the effective weight and bias of the last one, density first."""
        first, last = self.net[0], self.net[2]
        assert isinstance(first, FullyConnected) and isinstance(last, FullyConnected)
        return first, last.weight * last.weight_gain, last.bias * last.bias_gain

    def density_bias(self) -> Tensor:
        """The parameter's part [1] that is added to the raw density (times the layer's gain, and ``density_gain``)."""
        last = self.net[2]
        assert isinstance(last, FullyConnected)
        return last.bias[:1]

    def matrices(self, *, planes: int, colours: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Effective weights and biases of both layers, acting on the *sum* over planes; without colours one output row."""
        first, w2, b2 = self.layers()
        w1, b1 = first.weight * (first.weight_gain / planes), first.bias * first.bias_gain
        if not colours:
            w2, b2 = w2[:1], b2[:1]
        if self.density_gain != 1.0:
            gains = torch.ones_like(b2)
            gains[0] = self.density_gain
            w2, b2 = w2 * gains[:, None], b2 * gains
        return w1, b1, w2, b2

    def forward(self, features: Tensor, *, colours: bool = True) -> tuple[Tensor, Tensor | None]:
        """Raw density [B,N] and colours [B,C,N] in (-0.001, 1.001) of plane features [B,3,F,N]."""
        w1, b1, w2, b2 = self.matrices(planes=features.shape[1], colours=colours)
        hidden = F.softplus(w1 @ features.sum(dim=1) + b1[:, None])
        out = w2 @ hidden + b2[:, None]
        if not colours:
            return out[:, 0], None
        return out[:, 0], torch.sigmoid(out[:, 1:]) * COLOUR_SCALE + COLOUR_OFFSET


class SplitDecoder(Decoder):
    """BallGAN's form: last layers of their own for colours (``rgb_out``) and density (``sigma_out``, which starts from zero)."""

    def __init__(self, in_features: int, hidden: int, out_features: int, *, lr_multiplier: float = 1.0, density_gain: float = 1.0) -> None:
        super().__init__(in_features, hidden, out_features, lr_multiplier=lr_multiplier, density_gain=density_gain)
        self.net = nn.Sequential(self.net[0], self.net[1])
        self.rgb_out = FullyConnected(hidden, out_features, lr_multiplier=lr_multiplier)
        self.sigma_out = FullyConnected(hidden, 1, lr_multiplier=lr_multiplier)
        nn.init.zeros_(self.sigma_out.weight)

    def layers(self) -> tuple[FullyConnected, Tensor, Tensor]:
        """The first layer, and both last ones as one."""
        first, last = self.net[0], (self.sigma_out, self.rgb_out)
        assert isinstance(first, FullyConnected)
        weight = torch.cat([layer.weight * layer.weight_gain for layer in last])
        return first, weight, torch.cat([layer.bias * layer.bias_gain for layer in last])

    def density_bias(self) -> Tensor:
        """The parameter [1] that is added to the raw density."""
        return self.sigma_out.bias


def split_last_layer(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of a `Decoder`, whatever their names begin with, as a `SplitDecoder` has them: rows are moved, no number changes.

    >>> joint, split = Decoder(2, 3, 4), SplitDecoder(2, 3, 4)
    >>> missing = split.load_state_dict(split_last_layer(joint.state_dict()))
    >>> torch.equal(joint.layers()[1], split.layers()[1])
    True
    """
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        before, joint, kind = name.partition("net.2.")
        if joint and (not before or before.endswith("decoder.")):
            out[f"{before}sigma_out.{kind}"], out[f"{before}rgb_out.{kind}"] = tensor[:1], tensor[1:]
        else:
            out[name] = tensor
    return out
