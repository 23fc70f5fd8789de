"""Synthesis convolutions without gradient, a strip of rows at a time.

On a processor what follows a convolution (filter, noise, activation, clamp) costs as much as the convolution itself when every step
writes a whole map: fresh memory is slow, and a map of 512^2 x 128 numbers fits no cache. Here a strip of rows goes through all steps while
it is in the cache, and nothing but the layer's output is as large as the map. Styles go into the weights, which are smaller.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .activation import LEAK

STRIP_BYTES = 4 << 20
"""Least output of one strip. Between 2 and 16 MiB the time hardly changes; beyond, the steps run in main memory."""


def rows_of_a_strip(weight: Tensor, width: int, scale: int) -> int:
    """Rows of the input (``width`` pixels wide) behind a strip of the output, which is ``scale`` times as large.

    Every strip brings the weight [O,I,3,3] into the convolution's own order once more, so it should be larger than the weight.

    >>> rows_of_a_strip(torch.empty(128, 128, 3, 3, device="meta"), 512, 1)
    16
    """
    size = weight.element_size()
    return max(1, max(STRIP_BYTES, 2 * size * weight.numel()) // (size * weight.shape[0] * scale**2 * width))


def convolve_in_strips(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    rows: int,
    *,
    filter_kernel: Tensor | None = None,
    noise: Tensor | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Convolution with the samples' own weights, noise, bias, leaky ReLU and clamp: [B,I,H,W] to [B,O,H,W], without gradient.

    Args: weight [B,O,I,3,3]; bias [O]; ``rows`` of x in a strip; noise [B or 1,1,H,W] to be added. With a ``filter_kernel`` [4,4] the
    convolution up-samples as `upsampling_convolution` does: result and noise are twice as large as x.

    >>> x, weight = torch.ones(1, 1, 4, 4), torch.ones(1, 2, 1, 3, 3)
    >>> convolve_in_strips(x, weight, torch.zeros(2), 3, clamp=8.0)[0, 1, 1].tolist()
    [6.0, 8.0, 8.0, 6.0]
    """
    batch, _, height, width = x.shape
    outputs, scale = weight.shape[1], 1 if filter_kernel is None else 2
    taps = None if filter_kernel is None else (filter_kernel * 4.0).to(x.dtype).expand(outputs, 1, *filter_kernel.shape)
    out: Tensor | None = None
    for sample in range(batch):
        for first in range(0, height, rows):
            last = min(first + rows, height)
            strip = _rows(x[sample : sample + 1], first - 1, last + 1)
            if taps is None:
                y = F.conv2d(strip, weight[sample], bias, padding=(0, 1))
            else:
                # One row beyond the strip on either side is what the filter reads, so the outermost two are not made.
                y = F.conv_transpose2d(strip, weight[sample].transpose(0, 1), stride=2, padding=(1, 0))
                y = F.conv2d(y, taps, bias, padding=(0, 1), groups=outputs)
            if noise is not None:
                y += noise[min(sample, len(noise) - 1), :, scale * first : scale * last]
            F.leaky_relu_(y, LEAK)
            if out is None:
                shape = (batch, outputs, scale * height, scale * width)
                out = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last)
            part = out[sample : sample + 1, :, scale * first : scale * last]
            if clamp is None:
                part.copy_(y)
            else:
                torch.clamp(y, -clamp, clamp, out=part)
    assert out is not None
    return out


def _rows(x: Tensor, first: int, last: int) -> Tensor:
    """Rows ``first`` to ``last`` of x [B,C,H,W], zeros where they lie outside."""
    above, below = max(-first, 0), max(last - x.shape[2], 0)
    inside = x[:, :, first + above : last - below]
    return F.pad(inside, (0, 0, above, below)) if above or below else inside
