"""The dual discriminator: a residual StyleGAN2 discriminator of the image stacked with the resized raw image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import PriorzooError
from ..stylegan2.filtering import fir_kernel, laid_out
from ..stylegan2.layers import Conv2dLayer, FullyConnected
from ..stylegan2.mapping import MappingNetwork
from .synthesis import channels_at


def resize(image: Tensor, size: int) -> Tensor:
    """Antialiased bilinear resize of [B,C,h,w] to [B,C,size,size]; the input itself when nothing changes."""
    if image.shape[-2:] == (size, size):
        return image
    # Up-sampling needs no antialiasing (the kernels coincide), and the plain operator is faster.
    shrinking = image.shape[-1] > size or image.shape[-2] > size
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=shrinking)


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append to [B,C,H,W] one channel: the mean standard deviation over groups of samples.

    Samples whose indices are equal modulo B/group form a group (Karras et al. 2018, section 3, as StyleGAN2 batches
    it).
    """
    batch, channels, height, width = x.shape
    group = min(group, batch)
    if batch % group:
        raise PriorzooError(f"discriminator: a batch of {batch} does not divide into groups of {group} (minibatch deviation)")
    grouped = x.view(group, -1, channels, height, width)
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    plane = deviation.repeat(group)[:, None, None, None].expand(-1, 1, height, width)
    return torch.cat([x, plane], dim=1)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size: sqrt(1/2) (skip(x) + conv1(conv0(x)))."""

    resample_filter: Tensor

    def __init__(self, in_channels: int, channels: int, out_channels: int, *, clamp: float | None) -> None:
        super().__init__()
        self.register_buffer("resample_filter", fir_kernel())
        if in_channels:
            self.fromrgb = Conv2dLayer(in_channels, channels, 1, clamp=clamp)
        self.reads_image = in_channels > 0
        half = math.sqrt(0.5)
        self.conv0 = Conv2dLayer(channels, channels, 3, clamp=clamp)
        self.conv1 = Conv2dLayer(channels, out_channels, 3, down=True, clamp=clamp, gain=half)
        self.skip = Conv2dLayer(channels, out_channels, 1, bias=False, activation=False, down=True, gain=half)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,C,H,W] to [B,out,H/2,W/2]."""
        if self.reads_image:
            x = self.fromrgb(x)
        return self.conv1(self.conv0(x)) + self.skip(x)


class DiscriminatorEpilogue(nn.Module):
    """Minibatch deviation, a 3x3 convolution and two linear layers on the 4x4 map."""

    def __init__(self, channels: int, out_features: int, *, clamp: float | None, group: int) -> None:
        super().__init__()
        self.group = group
        self.conv = Conv2dLayer(channels + (1 if group > 1 else 0), channels, 3, clamp=clamp)
        self.fc = FullyConnected(channels * 16, channels, activation=True)
        self.out = FullyConnected(channels, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B,C,4,4] to [B,out]."""
        if self.group > 1:
            x = minibatch_deviation(x, self.group)
        return self.out(self.fc(self.conv(x).flatten(1)))


class DualDiscriminator(nn.Module):
    """Logits of {image, image_raw} for a camera label (EG3D, section 4.3 and supplement).

    ``dual`` False makes the single discriminator that reads ``image`` alone. ``label_noise`` adds noise to the label,
    scaled by the batch's standard deviation, drawn by the caller.
    """

    resample_filter: Tensor
    memory_format = "auto"  # of the images; auto: as they come

    def __init__(
        self,
        *,
        resolution: int,
        c_dim: int = 25,
        channel_base: int = 32768,
        channel_max: int = 512,
        dual: bool = True,
        clamp: float | None = 256.0,
        mapping_layers: int = 8,
        group: int = 4,
    ) -> None:
        super().__init__()
        self.resolution, self.dual, self.c_dim = resolution, dual, c_dim
        self.register_buffer("resample_filter", fir_kernel())
        self.resolutions = [2**k for k in range(resolution.bit_length() - 1, 2, -1)]
        for size in self.resolutions:
            block = DiscriminatorBlock(
                (6 if dual else 3) if size == resolution else 0,
                channels_at(size, channel_base, channel_max),
                channels_at(size // 2, channel_base, channel_max),
                clamp=clamp,
            )
            self.add_module(f"b{size}", block)
        width = channels_at(4, channel_base, channel_max)
        if c_dim:
            self.mapping = MappingNetwork(0, c_dim, width, layers=mapping_layers, track_average=False)
        self.b4 = DiscriminatorEpilogue(width, width if c_dim else 1, clamp=clamp, group=group)

    def forward(self, image: Tensor, image_raw: Tensor | None, label: Tensor | None) -> Tensor:
        """Logits [B,1] of image [B,3,H,H] and image_raw [B,3,h,h] in [-1,1], camera label [B,25]."""
        if image.shape[-1] != self.resolution:
            raise PriorzooError(f"discriminator: reads images of {self.resolution} pixels a side, got {image.shape[-1]}")
        x = image
        if self.dual:
            if image_raw is None:
                raise PriorzooError("discriminator: the dual discriminator reads image and image_raw, got image alone")
            x = torch.cat([image, resize(image_raw, self.resolution)], dim=1)
        if self.memory_format != "auto":
            x = laid_out(x, self.memory_format)
        for size in self.resolutions:
            x = self.get_submodule(f"b{size}")(x)
        with torch.autocast(x.device.type, enabled=False):  # half precision is for the large maps; deviations want float32
            x = self.b4(x.to(self.b4.out.weight.dtype))
            if not self.c_dim:
                return x
            code = self.mapping(None, label)
            return (x * code).sum(dim=1, keepdim=True) / math.sqrt(code.shape[1])
