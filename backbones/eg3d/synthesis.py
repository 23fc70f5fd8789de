"""The StyleGAN2 synthesis network that draws the feature planes ("skip" architecture)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..stylegan2.filtering import fir_kernel, laid_out, upsample2
from ..stylegan2.layers import Noise, SynthesisLayer, ToRGB


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Channels of the layers at a resolution: min(base // resolution, max).

    >>> [channels_at(r, 32768, 512) for r in (64, 128, 256)]
    [512, 256, 128]
    """
    return min(channel_base // resolution, channel_max)


class SynthesisBlock(nn.Module):
    """Two synthesis layers and a torgb: the output image is the up-sampled previous image plus torgb.

    ``in_channels`` 0 makes the first block, which starts from a learned constant; ``up`` False keeps the size
    (the NoUp blocks of super-resolution).
    """

    resample_filter: Tensor
    memory_format = "auto"  # of the features that the first block starts from

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        w_dim: int,
        resolution: int,
        image_channels: int,
        up: bool = True,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.first, self.up = in_channels == 0, up
        self.register_buffer("resample_filter", fir_kernel())
        if self.first:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim=w_dim, resolution=resolution, up=up, clamp=clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim=w_dim, resolution=resolution, clamp=clamp)
        self.torgb = ToRGB(out_channels, image_channels, w_dim=w_dim, clamp=clamp)

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Features and image at this resolution; ``ws`` [B,3,w_dim] ([B,2,w_dim] for the first block): conv0, conv1, torgb."""
        if self.first:
            x = laid_out(self.const.expand(len(ws), -1, -1, -1), self.memory_format)
        else:
            assert x is not None
            x = self.conv0(x, ws[:, 0], noise)
        x = self.conv1(x, ws[:, -2], noise)
        rgb = self.torgb(x, ws[:, -1])
        rgb = rgb if rgb.element_size() >= 4 else rgb.float()  # the image is summed in float32 whatever the layers compute in
        if image is None:
            return x, rgb
        if self.up:
            with torch.autocast(image.device.type, enabled=False):
                image = upsample2(image, self.resample_filter)
        return x, image + rgb


class SynthesisNetwork(nn.Module):
    """Blocks ``b4, b8, ... b{resolution}``; w number 2k-1 feeds conv0 of block k, 2k its conv1, 2k+1 its torgb."""

    def __init__(
        self,
        *,
        w_dim: int,
        resolution: int,
        image_channels: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolutions = [2**k for k in range(2, resolution.bit_length())]
        previous = 0
        for size in self.resolutions:
            channels = channels_at(size, channel_base, channel_max)
            block = SynthesisBlock(previous, channels, w_dim=w_dim, resolution=size, image_channels=image_channels, clamp=clamp)
            self.add_module(f"b{size}", block)
            previous = channels
        self.num_ws = 2 * len(self.resolutions)

    def forward(self, ws: Tensor, noise: Noise = None) -> Tensor:
        """Map ws [B,num_ws,w_dim] to an image [B,image_channels,resolution,resolution]."""
        x, image = None, None
        for index, size in enumerate(self.resolutions):
            first = max(2 * index - 1, 0)
            x, image = self.get_submodule(f"b{size}")(x, image, ws[:, first : 2 * index + 2], noise)
        assert image is not None
        return image


class PlaneGenerator(nn.Module):
    """Mapping and synthesis under the names of the published files: ``mapping.*`` and ``synthesis.*``."""

    def __init__(self, mapping: nn.Module, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.synthesis = synthesis
        self.mapping = mapping
