"""pi-GAN's discriminators: residual convolutions that grow with the image, some of which tell latent and pose of what they see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import PriorzooError

LEAK = 0.2
POSE = 2


@dataclass(frozen=True)
class Design:
    """What tells one published discriminator from another.

    ``widths``: channels before the first block, then after each. ``coordinates``: every 3x3 convolution also sees where it is.
    ``pooled``: blocks halve by averaging, and their shortcut has weights only where widths differ; else by strides, with weights always.
    ``encodes``: it tells latent and pose beside its logit.
    """

    widths: tuple[int, ...]
    coordinates: bool = True
    pooled: bool = False
    encodes: bool = False


STRIDED_WIDTHS = (32, 64, 128, 256, 400, 400, 400, 400)
POOLED_WIDTHS = (16, 32, 64, 128, 256, 400, 400, 400, 400)
DESIGNS = {
    "ccs": Design(STRIDED_WIDTHS),
    "ccs_encoder": Design(STRIDED_WIDTHS, encodes=True),
    "strided": Design(STRIDED_WIDTHS, coordinates=False),
    "progressive": Design(POOLED_WIDTHS, pooled=True),
    "progressive_encoder": Design(POOLED_WIDTHS, pooled=True, encodes=True),
}
"""By name; the published classes are CCSDiscriminator, CCSEncoderDiscriminator, StridedDiscriminator and so on."""


@dataclass
class Verdict:
    """What a discriminator says of images: ``logits`` [B]; ``latent`` [B,L] and ``pose`` [B,2] (pitch, yaw) where it encodes."""

    logits: Tensor
    latent: Tensor | None = None
    pose: Tensor | None = None


def coordinate_maps(height: int, width: int, like: Tensor) -> Tensor:
    """Row and column of every pixel, [1,2,H,W], from -1 to 1 inclusive: the row's first (CoordConv, Liu et al. 2018).

    >>> coordinate_maps(2, 3, torch.zeros(1))[0, 1].tolist()
    [[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]]
    """
    rows, columns = (torch.linspace(-1.0, 1.0, n, dtype=like.dtype, device=like.device) for n in (height, width))
    return torch.stack([rows[:, None].expand(height, width), columns[None].expand(height, width)])[None]


class CoordConv(nn.Module):
    """A 3x3 convolution of the image with two more channels, row and column (last); the coordinates' part is computed once a batch."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(inputs + 2, outputs, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve [B,C,H,W]."""
        weight = self.conv.weight
        places = coordinate_maps(x.shape[2], x.shape[3], weight)
        where = F.conv2d(places, weight[:, -2:], self.conv.bias, self.stride, 1)
        return F.conv2d(x, weight[:, :-2], None, self.stride, 1) + where


class ResidualBlock(nn.Module):
    """Halves the size: (shortcut(x) + convolutions(x)) / sqrt(2)."""

    def __init__(self, inputs: int, outputs: int, design: Design) -> None:
        super().__init__()
        self.pooled = design.pooled
        stride = 1 if design.pooled else 2

        def convolution(inputs: int, stride: int) -> nn.Module:
            if design.coordinates:
                return CoordConv(inputs, outputs, stride)
            return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)

        self.network = nn.Sequential(convolution(inputs, 1), nn.LeakyReLU(LEAK), convolution(outputs, stride), nn.LeakyReLU(LEAK))
        # The published initialisation meets no convolution of the pooled family: those keep torch's own.
        for module in self.network.modules() if not design.pooled else ():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=LEAK, mode="fan_in", nonlinearity="leaky_relu")
        self.proj: nn.Conv2d | None = None
        if not design.pooled or inputs != outputs:
            self.proj = nn.Conv2d(inputs, outputs, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,C,H,W] to [B,D,H/2,W/2]."""
        y = self.network(x)
        if self.pooled:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        shortcut = x if self.proj is None else self.proj(x)
        return (y + shortcut) / math.sqrt(2.0)


class FromRGB(nn.Module):
    """A 1x1 convolution of an image and a leaky ReLU."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, outputs, 1), nn.LeakyReLU(LEAK))

    def forward(self, image: Tensor) -> Tensor:
        """Map [B,3,H,W] to [B,C,H,W]."""
        out: Tensor = self.model(image)
        return out


class ProgressiveDiscriminator(nn.Module):
    """A discriminator of images of any power of two, up to 2^(blocks + 1) pixels a side; each size enters at a block of its own.

    ``name`` is one of DESIGNS, ``channel_max`` caps its widths, ``latent`` is the size of the latent that an encoder tells.

    >>> discriminator = ProgressiveDiscriminator("ccs_encoder", channel_max=4, latent=6)
    >>> verdict = discriminator(torch.zeros(2, 3, 16, 16), alpha=0.5)
    >>> verdict.logits.shape, verdict.latent.shape, verdict.pose.shape
    (torch.Size([2]), torch.Size([2, 6]), torch.Size([2, 2]))
    """

    def __init__(self, name: str, *, channel_max: int = 400, latent: int = 256) -> None:
        super().__init__()
        self.design, self.latent = DESIGNS[name], latent
        widths = [min(width, channel_max) for width in self.design.widths]
        self.layers = nn.ModuleList(ResidualBlock(a, b, self.design) for a, b in pairwise(widths))
        self.fromRGB = nn.ModuleList(FromRGB(width) for width in widths)
        self.final_layer = nn.Conv2d(widths[-1], 1 + (latent + POSE if self.design.encodes else 0), 2)

    @property
    def largest(self) -> int:
        """Side of the largest image in pixels."""
        return int(2 ** (len(self.layers) + 1))

    def forward(self, image: Tensor, alpha: float = 1.0) -> Verdict:
        """Judge images [B,3,H,H]. ``alpha`` in [0,1] fades the first block in: below 1 the image at half its size enters behind it too.

        Raises PriorzooError for a size that is no power of two or too large.
        """
        size = image.shape[-1]
        if image.shape[-2] != size or size < 2 or size & (size - 1) or size > self.largest:
            raise PriorzooError(
                f"discriminator: images must be square, a power of two from 2 to {self.largest} pixels a side; got "
                f"{image.shape[-2]} x {size}"
            )
        start = len(self.layers) + 1 - (size.bit_length() - 1)
        x = self.fromRGB[start](image)
        for number, layer in enumerate(self.layers[start:]):
            if number == 1 and alpha < 1:
                x = alpha * x + (1.0 - alpha) * self.fromRGB[start + 1](image[:, :, ::2, ::2])
            x = layer(x)
        out = self.final_layer(x).flatten(1)
        if not self.design.encodes:
            return Verdict(out[:, 0])
        return Verdict(out[:, 0], out[:, 1 : 1 + self.latent], out[:, 1 + self.latent :])
