"""Depth without shift and scale: what one image can tell of it."""

from __future__ import annotations

import torch
from torch import Tensor


def standardised(depth: Tensor, foreground: Tensor) -> Tensor:
    """Depth with mean 0 and deviation 1 over each image's foreground; 0 elsewhere, and everywhere without a foreground.

    ``depth`` [B,1,h,w] may be infinite outside ``foreground`` [B,1,h,w] bool.

    >>> standardised(torch.tensor([[[[1.0, 3.0, 9.0]]]]), torch.tensor([[[[True, True, False]]]]))
    tensor([[[[-1.,  1.,  0.]]]])
    """
    inside = torch.where(foreground, depth, torch.zeros_like(depth))
    count = foreground.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = inside.sum(dim=(2, 3), keepdim=True) / count
    centred = torch.where(foreground, depth - mean, torch.zeros_like(depth))
    deviation = (centred.square().sum(dim=(2, 3), keepdim=True) / count).sqrt()
    return centred / deviation.clamp_min(1e-8)
