"""The elementary layers of StyleGAN2 as EG3D uses them: equalised linear and convolutional layers, modulated convolution.

Parameter and buffer names are the published file format. Sources: Karras et al. 2020 (StyleGAN2), sections 2 and B;
Chan et al. 2022 (EG3D), section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .activation import LEAK, activate_
from .filtering import downsample2, downsampling_convolution, fir_kernel, upsampling_convolution
from .strips import convolve_in_strips, rows_of_a_strip

SQRT2 = math.sqrt(2.0)

Noise = Callable[[int], Tensor] | str | None
"""Noise of synthesis layers: a function resolution -> [B,1,r,r], ``"const"`` for the stored maps, or None."""


def normalise_second_moment(x: Tensor) -> Tensor:
    """Scale each row of ``x`` [B,C] to mean square 1: x * rsqrt(mean(x^2) + 1e-8).

    >>> normalise_second_moment(torch.tensor([[3.0, 3.0]])).tolist()
    [[1.0, 1.0]]
    """
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class FullyConnected(nn.Module):
    """Equalised linear layer: y = act(x (W lr / sqrt(in))^T + b lr), leaky ReLU with gain sqrt(2) where asked.

    Weights are stored as N(0,1) / lr and scaled at run time (Karras et al. 2018, section 4.1).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: bool = False,
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init)))
        self.activation = activation
        self.bias_gain = lr_multiplier
        self.weight_gain = lr_multiplier / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,in] to [B,out]."""
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return F.leaky_relu(x, LEAK) * SQRT2 if self.activation else x


def carries_gradient(*tensors: Tensor | None) -> bool:
    """Whether operations on these tensors are recorded for a backward pass."""
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


def demodulation(weight: Tensor, style: Tensor, gain: float = 1.0) -> Tensor:
    """Factors [B,O] that give each output channel unit variance: gain / sqrt(sum_{i,k} (W s)^2 + 1e-8).

    Never under autocast: in float16 a sum over 4,608 squares overflows once styles are of size 4.
    """
    with torch.autocast(style.device.type, enabled=False):
        return (style.to(weight.dtype).square() @ weight.square().sum(dim=(2, 3)).T + 1e-8).rsqrt() * gain


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU (gain sqrt(2)), clamp.

    y = d * conv(x * s, W) with d = 1 / sqrt(sum (W s)^2 + 1e-8) (StyleGAN2, section 2.2): the same as a convolution
    with per-sample weights d W s, which are built where they are smaller than the maps. The gain is folded into demodulation, noise
    and bias, for leaky ReLU commutes with positive factors.
    """

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        up: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.up, self.clamp, self.resolution = up, clamp, resolution
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.register_buffer("resample_filter", fir_kernel())

    def forward(self, x: Tensor, w: Tensor, noise: Noise = None) -> Tensor:
        """Map [B,in,H,W] (H/2 where up-sampling) and w [B,w_dim] to [B,out,H,W]."""
        style = self.affine(w)
        factor = demodulation(self.weight, style, SQRT2)
        bias = self.bias * SQRT2
        pattern = None
        if noise is not None:
            pattern = (self.noise_const[None, None] if isinstance(noise, str) else noise(self.resolution)) * (self.noise_strength * SQRT2)
        rows = rows_of_a_strip(self.weight, x.shape[-1], 2 if self.up else 1)
        if x.device.type == "cpu" and rows < x.shape[-2]:  # the map is larger than the weights: styles go into those
            weight = self.weight * (style[:, None] * factor[:, :, None])[..., None, None]
            if not carries_gradient(x, weight, bias, pattern):
                kernel = self.resample_filter if self.up else None
                return convolve_in_strips(x, weight, bias, rows, filter_kernel=kernel, noise=pattern, clamp=self.clamp)
            parts = [self._convolve(one, own[0], bias) for one, own in zip(torch.split(x, 1), torch.split(weight, 1), strict=True)]
            y = parts[0] if len(parts) == 1 else torch.cat(parts)
        else:
            y = self._convolve(x * style[:, :, None, None], self.weight)
            y = torch.addcmul(bias.to(y.dtype)[:, None, None], y, factor[:, :, None, None].to(y.dtype))
        if pattern is not None:
            y += pattern.to(y.dtype)
        return activate_(y, self.clamp)

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.up:
            return F.conv2d(x, weight, bias, padding=1)
        y = upsampling_convolution(x, weight, self.resample_filter)
        # Given to the filter, the bias would make its backward pass compute a gradient of the taps too.
        return y if bias is None else y.add_(bias.to(y.dtype)[:, None, None])


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation to image (or plane) channels; style scaled by 1/sqrt(in)."""

    def __init__(self, in_channels: int, out_channels: int, *, w_dim: int, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1.0 / math.sqrt(in_channels)

    @torch.no_grad()
    def start_uniform(self) -> None:
        """Draw weight and bias from U(-1/sqrt(in), 1/sqrt(in)), as BallGAN's code starts them."""
        for tensor in (self.weight, self.bias):
            tensor.uniform_(-self.weight_gain, self.weight_gain)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map [B,in,H,W] and w [B,w_dim] to [B,out,H,W]."""
        # One small matrix product per sample: the styled weights are tiny, a pass over x is not.
        weights = self.weight[:, :, 0, 0] * (self.affine(w) * self.weight_gain)[:, None, :]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # a view in channels-last order
        y = torch.baddbmm(self.bias.to(x.dtype), pixels, weights.to(x.dtype).transpose(1, 2))
        y = y.view(len(x), *x.shape[2:], -1).permute(0, 3, 1, 2)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


class Conv2dLayer(nn.Module):
    """Equalised convolution of the discriminator: W / sqrt(in k^2), optional halving, leaky ReLU, clamp.

    ``gain`` multiplies the output and the clamp (residual branches use sqrt(0.5)).
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: bool = True,
        down: bool = False,
        clamp: float | None = None,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.activation, self.down = activation, down
        self.clamp = None if clamp is None else clamp * gain
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", fir_kernel())
        self.weight_gain = 1.0 / math.sqrt(in_channels * kernel_size**2)
        # Leaky ReLU commutes with positive factors, so its gain goes into weight and bias.
        self.output_gain = gain * SQRT2 if activation else gain

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,in,H,W] to [B,out,H,W], or half the size."""
        weight = self.weight * (self.weight_gain * self.output_gain)
        bias = None if self.bias is None else self.bias * self.output_gain
        if not self.down:
            y = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
        elif weight.shape[-1] == 1:
            y = F.conv2d(downsample2(x, self.resample_filter), weight, bias)
        else:
            y = downsampling_convolution(x, weight, self.resample_filter, bias)
        if self.activation:
            return activate_(y, self.clamp)
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)
