"""Which pixels a loss looks at: eroded masks, and the hardest share of what they leave."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.options import check_choice, check_number, check_odd

SCOPES = ("sample", "batch")


@torch.no_grad()
def erode(mask: Tensor, size: int) -> Tensor:
    """Binary erosion by a square: 1 where all of the size x size pixels around are 1; outside the image is 0.

    Args: mask [B,1,h,w], boolean or in [0,1]; size odd, 1 leaves the mask as it is. Returns a float mask [B,1,h,w]
    without gradient.
    Raises PriorzooError for another size.

    >>> erode(torch.ones(1, 1, 5, 5, dtype=torch.bool), 3).sum().item()
    9.0
    """
    check_odd("erode", "size", size, least=1)
    mask = as_real(mask)
    if size == 1:
        return mask
    from kornia.morphology import erosion  # takes half a second to import

    # A square is a row and a column: 2 k comparisons a pixel instead of k^2.
    for shape in ((1, size), (size, 1)):
        mask = erosion(mask, torch.ones(shape, dtype=mask.dtype, device=mask.device), border_type="constant", border_value=0.0)
    return mask


@dataclass(frozen=True)
class HardestMean:
    """``value`` [B], the ``count`` [B] of values behind it, ``pixels`` [B] of the mask, ``selected`` [B,1,h,w]."""

    value: Tensor
    count: Tensor
    pixels: Tensor
    selected: Tensor


def hardest_mean(values: Tensor, mask: Tensor, fraction: float, scope: str = "sample") -> HardestMean:
    """Mean of the largest ``fraction`` of the masked values.

    Of N masked values the n = max(1, ceil(fraction N)) largest are averaged; 0 where N = 0. With ``scope="sample"`` N
    is each sample's. With ``"batch"`` N is the whole batch's, value_b the mean over sample b's own share and count_b
    its number, so that sum(count value) / sum(count) is the pooled mean.

    Args: values [B,1,h,w]; mask [B,1,h,w] boolean; fraction in (0, 1]. Raises PriorzooError for another fraction or
    scope.

    >>> values = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    >>> hardest_mean(values, values > 1, 0.5).value.item()          # of 2, 3, 4 the two largest
    3.5
    """
    check_number("hardest_mean", "fraction", fraction, above=0.0, most=1.0)
    check_choice("hardest_mean", "scope", scope, SCOPES)
    pixels = mask.flatten(1).sum(dim=1)
    selected = mask if fraction == 1 else _largest(values.detach(), mask, fraction, scope)
    count = selected.flatten(1).sum(dim=1)
    # torch.where keeps what is not selected out of the gradient, even where it is not finite.
    total = torch.where(selected, values, 0.0).flatten(1).sum(dim=1)
    return HardestMean(total / count.clamp_min(1), count.to(total), pixels, selected)


@torch.no_grad()
def _largest(values: Tensor, mask: Tensor, fraction: float, scope: str) -> Tensor:
    """Boolean, as mask: the largest ``fraction`` of the masked values of each sample, or of the batch."""
    rows = values.masked_fill(~mask, -math.inf).reshape(len(values) if scope == "sample" else 1, -1)
    available = mask.reshape(rows.shape).sum(dim=1, keepdim=True)
    # 0.1 * 30 is a little more than 3 in floating point, and would be rounded up to 4. float32 errs by more than any guard of use.
    wanted = (available.double() * (fraction * (1 - 1e-12))).ceil().clamp_min(1).minimum(available)
    order = rows.argsort(dim=1, descending=True, stable=True)
    first = torch.arange(rows.shape[1], device=rows.device) < wanted
    return torch.zeros_like(first).scatter(1, order, first).reshape(mask.shape)


def as_real(values: Tensor) -> Tensor:
    """float64 as it is, everything else as float32: depth of 2.7 has steps of 0.002 in half precision."""
    return values if values.dtype == torch.float64 else values.float()
