"""Moving the pixels of images by a 2-D matrix: exactly where pixels stay whole, else resampled at twice the resolution.

Everything is linear in the image and can be differentiated twice with respect to it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The low-pass filter of Daubechies' least asymmetric wavelet with six vanishing moments (sym6). It is orthogonal to its own shifts
# by two: going up with it and down again with the same taps is exactly the identity.
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466, 0.787641141030194,
    0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
CENTRE = 5  # the tap that is taken as the filter's middle
# The filter's mean lies a little off its middle tap: by so many pixels what was brought up lies to the right of where it is looked for.
OFFSET = (sum(k * tap for k, tap in enumerate(SYM6)) / sum(SYM6) - CENTRE) / 2


class _Sampled(torch.autograd.Function):
    """Bilinear samples of an image, mirrored beyond its edge pixels; `grid_sample` whose backward can itself be differentiated."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.side = image.shape[2:]
        return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradient, grid, *ctx.side), None  # type: ignore[no-untyped-call]


class _Spread(torch.autograd.Function):
    """The adjoint of `_Sampled`: spreads samples [B,C,h,w] over an image [B,C,height,width]."""

    @staticmethod
    def forward(ctx: Any, samples: Tensor, grid: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(grid)
        # Of the image only the shape is read when its own gradient is the only one asked for.
        image = samples.new_zeros(()).expand(*samples.shape[:2], height, width)
        bilinear, reflection, align = 0, 2, True
        spread, _ = torch.ops.aten.grid_sampler_2d_backward(samples.contiguous(), image, grid, bilinear, reflection, align, (True, False))
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        (grid,) = ctx.saved_tensors
        return sampled(gradient, grid), None, None, None


def sampled(image: Tensor, grid: Tensor) -> Tensor:
    """Bilinear samples of image [B,C,H,W] at grid [B,h,w,2]: -1 and 1 are the centres of the edge pixels, beyond which it is mirrored.

    Differentiable as often as needed with respect to the image; the grid is taken as constant.

    >>> sampled(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.0, 0.0], [1.5, 0.0]]]])).flatten().tolist()
    [2.0, 2.5]
    """
    return _Sampled.apply(image, grid.detach())  # type: ignore[no-untyped-call]


def _taps(image: Tensor, gain: float) -> Tensor:
    return torch.tensor(SYM6, dtype=image.dtype, device=image.device) * gain


def doubled(image: Tensor) -> Tensor:
    """Bring images [B,C,S,S], mirrored beyond their edge pixels, to twice the resolution, [B,C,2S-1,2S-1]: pixel n comes to 2n."""
    taps, side = _taps(image, math.sqrt(2.0)), image.shape[-1]
    flat = F.pad(image.flatten(0, 1)[:, None], (3, 3, 3, 3), mode="reflect")
    flat = F.conv_transpose2d(flat, taps.view(1, 1, 1, -1), stride=(1, 2))
    flat = F.conv_transpose2d(flat, taps.view(1, 1, -1, 1), stride=(2, 1))
    first = 6 + CENTRE  # three padded pixels, and the filter's middle
    flat = flat[:, 0, first : first + 2 * side - 1, first : first + 2 * side - 1]
    return flat.reshape(*image.shape[:2], *flat.shape[1:])


def halved(image: Tensor) -> Tensor:
    """Bring images [B,C,2S+10,2S+10], whose first row is number -5, back to [B,C,S,S]: the transpose of going up."""
    taps = _taps(image, math.sqrt(0.5))
    flat = F.conv2d(image.flatten(0, 1)[:, None], taps.view(1, 1, 1, -1), stride=(1, 2))
    flat = F.conv2d(flat, taps.view(1, 1, -1, 1), stride=(2, 1))
    return flat.reshape(*image.shape[:2], *flat.shape[2:])


def resampled(image: Tensor, inverse: Tensor) -> Tensor:
    """Move images [B,C,S,S] by matrices [B,3,3] that map a place of the outcome to where it is taken from.

    Places are in pixels from the image's centre, x right, y down. Twice the resolution by sym6, one bilinear look-up, back by sym6
    (Karras et al. 2020, appendix B); beyond its edge pixels the image is mirrored.
    """
    side = image.shape[-1]
    middle = (side - 1) / 2
    rows = torch.arange(-CENTRE, 2 * side + 5, dtype=image.dtype, device=image.device) / 2 - middle - OFFSET
    y, x = torch.meshgrid(rows, rows, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    taken = torch.einsum("bij,hwj->bhwi", inverse[:, :2].to(image), places)
    return halved(sampled(doubled(image), (taken + OFFSET) / middle))


def blit(image: Tensor, flip: bool, turns: int, shift: tuple[int, int]) -> Tensor:
    """Flip [C,S,S] left to right, turn it by quarters anticlockwise, move it right and down by whole pixels; mirrored where it leaves.

    >>> blit(torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]]), False, 0, (1, 0)).tolist()
    [[[2, 1, 2], [5, 4, 5], [8, 7, 8]]]
    """
    if flip:
        image = image.flip(-1)
    if turns:
        image = torch.rot90(image, turns, (-2, -1))
    for dimension, pixels in ((-1, shift[0]), (-2, shift[1])):
        if pixels:
            side = image.shape[dimension]
            source = (torch.arange(side, device=image.device) - pixels).abs()
            image = image.index_select(dimension, torch.minimum(source, 2 * (side - 1) - source))
    return image
