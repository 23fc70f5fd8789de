"""FIR resampling of feature maps: zero padding, symmetric taps, factor two.

Each fast form stands beside a readable reference (``..._reference``) that inserts zeros, filters and drops pixels literally;
the tests compare values and gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

TAPS = (1.0, 3.0, 3.0, 1.0)
"""The published taps: the outer product of [1,3,3,1] / 8 with itself."""


def fir_kernel(taps: Sequence[float] = TAPS) -> Tensor:
    """The separable kernel [n,n] of symmetric taps, normalised to sum 1.

    >>> fir_kernel()[0].mul(64).tolist()
    [1.0, 3.0, 3.0, 1.0]
    """
    line = torch.tensor(tuple(taps), dtype=torch.float32)
    return torch.outer(line, line) / line.sum() ** 2


def filter_reference(x: Tensor, kernel: Tensor, before: int, after: int, gain: float = 1.0) -> Tensor:
    """Correlate every channel of ``x`` [B,C,H,W] with ``kernel`` [n,n] after zero padding ``before``/``after`` on both axes."""
    channels = x.shape[1]
    weight = (kernel * gain).to(x.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(F.pad(x, (before, after, before, after)), weight, groups=channels)


def upsample2_reference(x: Tensor, kernel: Tensor) -> Tensor:
    """Twice the size [B,C,2H,2W]: a zero after every pixel, then the filter with gain 4 (EG3D's image skip path)."""
    batch, channels, height, width = x.shape
    stuffed = x.new_zeros(batch, channels, 2 * height, 2 * width)
    stuffed[:, :, ::2, ::2] = x
    size = kernel.shape[0]
    return filter_reference(stuffed, kernel, size // 2, (size - 1) // 2, gain=4.0)


def downsample2_reference(x: Tensor, kernel: Tensor) -> Tensor:
    """Half the size [B,C,H/2,W/2]: the filter, then every second pixel."""
    size = kernel.shape[0]
    return filter_reference(x, kernel, (size - 1) // 2, (size - 1) // 2)[:, :, ::2, ::2]


def upsample2(x: Tensor, kernel: Tensor) -> Tensor:
    """Twice the size, as `upsample2_reference`, without the zeros: one transposed depthwise convolution.

    >>> upsample2(torch.ones(1, 1, 4, 4), fir_kernel())[0, 0, 2, 2:6].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    channels, size = x.shape[1], kernel.shape[0]
    weight = (kernel * 4.0).to(x.dtype).expand(channels, 1, *kernel.shape)
    return F.conv_transpose2d(x, weight, stride=2, padding=(size - 1) // 2, groups=channels)


def downsample2(x: Tensor, kernel: Tensor) -> Tensor:
    """Half the size, as `downsample2_reference`, without computing the pixels that are dropped.

    >>> downsample2(torch.ones(1, 1, 8, 8), fir_kernel())[0, 0, 1, 1].item()
    1.0
    """
    channels, size = x.shape[1], kernel.shape[0]
    weight = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(x, weight, stride=2, padding=(size - 1) // 2, groups=channels)


def upsampling_convolution_reference(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """Zero-stuffed 3x3 convolution, then the filter with gain 4: [B,I,H,W] and [O,I,3,3] give [B,O,2H,2W].

    The published order of operations: a transposed convolution (so ``weight`` acts mirrored with respect to ordinary layers),
    (2H+1) pixels wide, padded by one and filtered.
    """
    return filter_reference(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), kernel, 1, kernel.shape[0] - 3, gain=4.0)


def upsampling_convolution(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """As the reference; the padding is the filter's own.

    Of the forms tried on a processor (separable filter, shifted sums, filter and weight combined into the four phases of a 6x6 kernel)
    this one in channels-last order was the fastest by up to three times, at 16 as at 256 channels.
    """
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    taps = (kernel * 4.0).to(y.dtype).expand(y.shape[1], 1, *kernel.shape)
    return F.conv2d(y, taps, padding=1, groups=y.shape[1])


def downsampling_convolution_reference(x: Tensor, weight: Tensor, kernel: Tensor) -> Tensor:
    """The filter (zero padding 2), then the 3x3 convolution with stride two: [B,O,H/2,W/2]."""
    return F.conv2d(filter_reference(x, kernel, 2, kernel.shape[0] - 2), weight, stride=2)


MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def laid_out(x: Tensor, memory_format: str = "auto") -> Tensor:
    """Put a feature map [B,C,H,W] into a memory order, which the layers after it keep.

    ``auto``: channels-last on a processor, where convolutions in it are up to three times faster; unchanged elsewhere.
    """
    if memory_format == "auto":
        return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
    return x.contiguous(memory_format=MEMORY_FORMATS[memory_format])


def downsampling_convolution(x: Tensor, weight: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """As the reference, plus a bias [O]; padding and filter are one depthwise convolution."""
    channels = x.shape[1]
    taps = kernel.to(x.dtype).expand(channels, 1, *kernel.shape)
    return F.conv2d(F.conv2d(x, taps, padding=2, groups=channels), weight, bias, stride=2)
