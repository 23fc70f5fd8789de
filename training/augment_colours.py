"""The colours' half of adaptive augmentation: one affine map of RGB a sample (Karras et al. 2020, ADA, appendix B)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.streams import Stream

BRIGHTNESS = 0.2  # deviation, in units of the image's range [-1,1]
CONTRAST, SATURATION = 0.5, 1.0  # deviations of log2


@dataclass
class Colours:
    """``matrix`` [B,4,4] acts on (red, green, blue, 1); ``moved`` [B] says where it is more than the identity."""

    matrix: Tensor
    moved: Tensor


def _linear(block: Tensor) -> Tensor:
    """Matrices [B,4,4] of linear maps [B,3,3]."""
    out = torch.eye(4, dtype=block.dtype, device=block.device).repeat(len(block), 1, 1)
    out[:, :3, :3] = block
    return out


def brightness(amount: Tensor) -> Tensor:
    """Add ``amount`` [B] to all three colours."""
    out = torch.eye(4, dtype=amount.dtype, device=amount.device).repeat(len(amount), 1, 1)
    out[:, :3, 3] = amount[:, None]
    return out


def contrast(factor: Tensor) -> Tensor:
    """Multiply all three colours by ``factor`` [B]."""
    return _linear(factor[:, None, None] * torch.eye(3, dtype=factor.dtype, device=factor.device))


def _grey(like: Tensor) -> tuple[Tensor, Tensor]:
    """The projection on the grey axis v = (1,1,1)/sqrt(3), v v^T [3,3], and the identity."""
    return torch.full((3, 3), 1 / 3, dtype=like.dtype, device=like.device), torch.eye(3, dtype=like.dtype, device=like.device)


def luma_flip(flipped: Tensor) -> Tensor:
    """Mirror the luma where ``flipped`` [B] is 1, leave it where 0: I - 2 v v^T."""
    grey, one = _grey(flipped)
    return _linear(one - 2 * flipped[:, None, None] * grey)


def hue(angle: Tensor) -> Tensor:
    """Turn the colours by ``angle`` [B] radians about the grey axis.

    R = v v^T + cos (I - v v^T) + sin [v]x (Rodrigues).

    >>> third = hue(torch.tensor([2 * math.pi / 3]))[0, :3, :3]        # red to green, green to blue, blue to red
    >>> (third @ torch.tensor([1.0, 0.0, 0.0])).round(decimals=4).abs().tolist()
    [0.0, 1.0, 0.0]
    """
    grey, one = _grey(angle)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]], dtype=angle.dtype, device=angle.device) / math.sqrt(3)
    return _linear(grey + angle.cos()[:, None, None] * (one - grey) + angle.sin()[:, None, None] * cross)


def saturation(factor: Tensor) -> Tensor:
    """Multiply what lies across the grey axis by ``factor`` [B]: v v^T + s (I - v v^T)."""
    grey, one = _grey(factor)
    return _linear(grey + factor[:, None, None] * (one - grey))


def draw_colours(stream: Stream, probability: float, dtype: torch.dtype = torch.float32) -> Colours:
    """Draw the colour transforms of a stream's samples; each acts with ``probability``.

    In order: brightness N(0, 0.2^2), contrast 2^N(0, 0.5^2), luma flip (of those it acts on, half), hue U(-pi, pi), saturation 2^N(0, 1).
    """
    gate, even, normal = stream.uniform(5), stream.uniform(2).to(dtype), stream.normal(3).to(dtype)
    acts = gate < probability
    zero = torch.zeros_like(even[:, 0])
    steps = (
        brightness(torch.where(acts[:, 0], BRIGHTNESS * normal[:, 0], zero)),
        contrast(torch.exp2(torch.where(acts[:, 1], CONTRAST * normal[:, 1], zero))),
        luma_flip((acts[:, 2] & (even[:, 0] < 0.5)).to(dtype)),
        hue(torch.where(acts[:, 3], (2 * even[:, 1] - 1) * math.pi, zero)),
        saturation(torch.exp2(torch.where(acts[:, 4], SATURATION * normal[:, 2], zero))),
    )
    matrix = steps[0]
    for step in steps[1:]:
        matrix = step @ matrix
    return Colours(matrix, acts.any(dim=1))


def recoloured(image: Tensor, matrix: Tensor) -> Tensor:
    """Apply matrices [B,4,4] to images [B,3n,H,W], to each triple of channels.

    >>> image = torch.zeros(1, 6, 2, 2)
    >>> recoloured(image, brightness(torch.tensor([0.5]))).unique().tolist()
    [0.5]
    """
    triples = image.reshape(len(image), -1, 3, *image.shape[2:])
    shift = matrix[:, None, :3, 3, None, None]
    return (torch.einsum("bij,bnjhw->bnihw", matrix[:, :3, :3], triples) + shift).flatten(1, 2)
