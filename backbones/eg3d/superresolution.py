"""Super-resolution modules: two StyleGAN2 blocks that turn the rendered feature image into the final image."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import PriorzooError, did_you_mean
from ..stylegan2.filtering import fir_kernel, laid_out
from ..stylegan2.layers import Noise
from .synthesis import SynthesisBlock


@dataclass(frozen=True)
class Layout:
    """One published module: output and input size, channels of its two blocks, where it up-samples, when it resizes."""

    resolution: int
    input_size: int
    channels: tuple[int, int]
    first_up: bool
    shrinks: bool  # also resizes inputs larger than input_size (the published condition is "!=", not "<")
    stores_filter: bool


LAYOUTS = {
    "2x": Layout(128, 64, (128, 64), first_up=False, shrinks=True, stores_filter=True),
    "4x": Layout(256, 128, (128, 64), first_up=False, shrinks=False, stores_filter=True),
    "8x": Layout(512, 128, (128, 64), first_up=True, shrinks=True, stores_filter=True),
    "8xdc": Layout(512, 128, (256, 128), first_up=True, shrinks=True, stores_filter=False),
}


def layout_of(name: str) -> Layout:
    """The layout of a module's name; raises PriorzooError for others and, by name, for the legacy DeepFp32."""
    key = name.lower()
    if key in ("deepfp32", "superresolutionhybriddeepfp32"):
        raise PriorzooError(
            "superresolution: the legacy module DeepFp32 cannot be built by the published generator either "
            f"(it takes no sr_antialias); use one of {', '.join(LAYOUTS)}"
        )
    if key not in LAYOUTS:
        raise PriorzooError(f"superresolution: {name!r} is not one of none, {', '.join(LAYOUTS)}" + did_you_mean(key, ["none", *LAYOUTS]))
    return LAYOUTS[key]


class SuperResolution(nn.Module):
    """``block0`` and ``block1`` driven by the last w alone; clamp 256 as published (also in float32).

    ``scale`` divides all sizes of the layout for small models: 2 makes the 8xdc module 64 -> 256.
    """

    resample_filter: Tensor
    memory_format = "auto"  # of the features

    def __init__(
        self,
        name: str,
        *,
        feature_channels: int,
        w_dim: int,
        channels: tuple[int, int] | None = None,
        input_size: int | None = None,
        clamp: float | None = 256.0,
        antialias: bool = True,
    ) -> None:
        super().__init__()
        layout = layout_of(name)
        self.antialias, self.shrinks = antialias, layout.shrinks
        self.input_size = layout.input_size if input_size is None else input_size
        self.resolution = self.input_size * layout.resolution // layout.input_size
        first, second = layout.channels if channels is None else channels
        if layout.stores_filter:
            self.register_buffer("resample_filter", fir_kernel())
        self.block0 = SynthesisBlock(
            feature_channels,
            first,
            w_dim=w_dim,
            resolution=self.input_size * (2 if layout.first_up else 1),
            image_channels=3,
            up=layout.first_up,
            clamp=clamp,
        )
        self.block1 = SynthesisBlock(first, second, w_dim=w_dim, resolution=self.resolution, image_channels=3, up=True, clamp=clamp)

    def forward(self, features: Tensor, ws: Tensor, noise: Noise = None) -> tuple[Tensor, Tensor]:
        """Map a feature image [B,C,h,w], whose first three channels are the raw image, to the final image.

        Returns (image [B,3,H,W], raw image [B,3,h,w] *as published*): where block0 keeps the size and nothing had to be
        resized, the published code adds block0's torgb into the raw image in place, so what it hands out as raw
        contains it. Everywhere else the second value is the plain rendering.
        """
        size = features.shape[-1]
        if size > self.input_size and not self.shrinks:
            raise PriorzooError(f"superresolution: takes at most {self.input_size} pixels a side, got {size}")
        x, rgb = features, features[:, :3]
        resized = size != self.input_size
        if resized:
            wanted = (self.input_size, self.input_size)
            x = F.interpolate(x, wanted, mode="bilinear", align_corners=False, antialias=self.antialias)
            rgb = x[:, :3]
        x = laid_out(x, self.memory_format)
        last = ws[:, -1:].expand(-1, 3, -1)
        x, image = self.block0(x, rgb, last, noise)
        raw = features[:, :3] if resized or self.block0.up else image
        _, image = self.block1(x, image, last, noise)
        return image, raw
