"""Augmentation of head images for supervised training: what tells a generator's samples from clean renders.

Early samples are blurred, blotchy, noisy and of odd colours; every effect here hits each image with its own strength.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

COLOUR, CONTRAST = 0.15, 0.25  # largest change of a channel's gain and shift, and of the contrast
BLUR, NOISE, BLOTCHES = 1.3, 0.10, 0.15  # largest Gaussian deviation in pixels; largest amplitudes in a range of [-1,1]
EFFECT_SHARE = 0.5  # share of images that each of blur, noise, blotches and coarse sampling touches


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Uniform numbers of an explicit generator."""
    return low + (high - low) * torch.rand(*shape, generator=generator)


def _strength(generator: torch.Generator, count: int, most: float) -> Tensor:
    """A strength per image [count,1,1,1] in [0, most], 0 for those left alone."""
    touched = torch.rand(count, 1, 1, 1, generator=generator) < EFFECT_SHARE
    return torch.where(touched, uniform(generator, 0.0, most, count, 1, 1, 1), torch.zeros(()))


def blurred(image: Tensor, deviation: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation in pixels per image, [B]; 0 leaves an image as it is.

    >>> image = torch.rand(2, 3, 8, 8)
    >>> torch.allclose(blurred(image, torch.tensor([0.0, 0.0])), image, atol=1e-6)
    True
    """
    count, channels, height, width = image.shape
    offset = torch.arange(-4.0, 5.0, device=image.device)
    kernel = torch.exp(-0.5 * (offset / deviation[:, None].clamp_min(1e-3)).square())
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None, None]
    flat = functional.pad(image.reshape(1, count * channels, height, width), (4, 4, 4, 4), mode="replicate")
    flat = functional.conv2d(flat, kernel, groups=count * channels)
    return functional.conv2d(flat, kernel.transpose(2, 3), groups=count * channels).view_as(image)


def coarsened(image: Tensor, side: int) -> Tensor:
    """The image averaged to ``side`` x ``side`` pixels and brought back bilinearly."""
    small = functional.interpolate(image, size=(side, side), mode="area")
    return functional.interpolate(small, size=image.shape[2:], mode="bilinear", align_corners=False)


def augmented(image: Tensor, generator: torch.Generator) -> Tensor:
    """Colour jitter, coarse sampling, blur, blotches and noise; ``image`` [B,3,H,W] in [-1,1], so is the result."""
    count, _, height, width = image.shape
    gain = 1.0 + uniform(generator, -COLOUR, COLOUR, count, 3, 1, 1)
    shift = uniform(generator, -COLOUR, COLOUR, count, 3, 1, 1)
    contrast = 1.0 + uniform(generator, -CONTRAST, CONTRAST, count, 1, 1, 1)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    out = ((image - mean) * contrast + mean) * gain + shift
    side = int(torch.randint(3 * height // 8, height + 1, (), generator=generator))
    coarse = torch.rand(count, 1, 1, 1, generator=generator) < EFFECT_SHARE
    out = torch.where(coarse, coarsened(out, side), out)
    out = blurred(out, _strength(generator, count, BLUR).flatten() * height / 64)
    spots = torch.randn(count, 3, height // 8, width // 8, generator=generator)
    spots = functional.interpolate(spots, size=(height, width), mode="bilinear", align_corners=False)
    out = out + spots * _strength(generator, count, BLOTCHES)
    out = out + torch.randn(out.shape, generator=generator) * _strength(generator, count, NOISE)
    return out.clamp(-1.0, 1.0)


def degraded(image: Tensor, seed: int = 0) -> Tensor:
    """Every image coarsened to 3/4 of its side, blurred by 0.8 pixels, noisy by 0.03: a fixed, harder case."""
    generator = torch.Generator().manual_seed(seed)
    out = coarsened(image, 3 * image.shape[2] // 4)
    out = blurred(out, torch.full((len(image),), 0.8 * image.shape[2] / 64))
    return (out + 0.03 * torch.randn(out.shape, generator=generator)).clamp(-1.0, 1.0)
