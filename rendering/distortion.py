"""The distortion of a ray's weights: how far apart along the ray they lie. Linear in the number of intervals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 15
"""Elements that are worked on at once on a processor: their few arrays stay in the cache of one core."""


def distortion_reference(weights: Tensor, edges: Tensor, *, squared: bool = True) -> Tensor:
    """As `distortion`, by the double sum as it is written: quadratic in time and memory.

    >>> edges = torch.tensor([[0.0, 0.5, 1.0]])
    >>> round(distortion_reference(torch.tensor([[0.5, 0.5]]), edges).item(), 4)     # 2 * 0.25 * 0.5 + (0.125 + 0.125) / 3
    0.3333
    """
    middles = 0.5 * (edges[..., 1:] + edges[..., :-1])
    between = (weights[..., :, None] * weights[..., None, :] * (middles[..., :, None] - middles[..., None, :]).abs()).sum(dim=(-2, -1))
    power = weights.square() if squared else weights
    return between + (power * (edges[..., 1:] - edges[..., :-1])).sum(dim=-1) / 3


def distortion(weights: Tensor, edges: Tensor, *, squared: bool = True) -> Tensor:
    """Distortion of each ray: L = sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (e_{i+1} - e_i).

    Mip-NeRF 360 (Barron et al. 2022, eq. 15), with m the intervals' middles. ``squared`` False has w_i in place of w_i^2, as BallGAN's
    poster prints it. Exact, in O(S): with C_i = sum_{j<=i} w_j the double sum is 2 sum_i C_i (C_S - C_i) (m_{i+1} - m_i), and the
    gradient takes one further running sum.

    Args: weights [...,S]; edges [...,S+1], sorted. Returns [...]. Differentiable once, in both.

    >>> edges = torch.tensor([[0.0, 0.5, 1.0]])
    >>> round(distortion(torch.tensor([[0.5, 0.5]]), edges).item(), 4)
    0.3333
    """
    value: Tensor = _Distortion.apply(weights, edges, squared)  # type: ignore[no-untyped-call]
    return value


class _Distortion(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, edges: Tensor, squared: bool) -> Tensor:
        w, e = weights.reshape(-1, weights.shape[-1]), edges.reshape(-1, edges.shape[-1])
        keep = any(ctx.needs_input_grad[:2])
        value = w.new_empty(len(w))
        slope = torch.empty_like(w) if keep else None
        rows = len(w) if w.device.type != "cpu" else max(1, BLOCK // w.shape[-1])
        for first in range(0, len(w), rows):
            part = slice(first, first + rows)
            _value_and_slope(w[part], e[part], squared, value[part], None if slope is None else slope[part])
        ctx.squared = squared
        if slope is not None:
            ctx.save_for_backward(slope.view(weights.shape), weights, *([edges] if ctx.needs_input_grad[1] else []))
        return value.view(weights.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        slope, weights, *edges = ctx.saved_tensors
        by_weights = slope * upstream[..., None] if ctx.needs_input_grad[0] else None
        by_edges = _edge_gradient(weights, ctx.squared) * upstream[..., None] if edges else None
        return by_weights, by_edges, None


def _value_and_slope(w: Tensor, e: Tensor, squared: bool, value: Tensor, slope: Tensor | None) -> None:
    """Write the distortion of rows [N,S] and, where wanted, its derivative by the weights."""
    lengths = e[:, 1:] - e[:, :-1]
    reached = w.cumsum(dim=1)  # C_i
    total = reached[:, -1:]
    gaps = 0.5 * (e[:, 2:] - e[:, :-2])  # m_{i+1} - m_i
    before = reached[:, :-1] * gaps
    if slope is None:
        between = 2 * (before * (total - reached[:, :-1])).sum(dim=1)
    else:
        # dL/dw_k = 2 (sum_{i<k} C_i d_i + sum_{i>=k} (C_S - C_i) d_i)
        passed = before.cumsum(dim=1)  # sum_{i<=k} C_i d_i
        whole = passed[:, -1:] if passed.shape[1] else torch.zeros_like(total)
        remaining = 0.5 * (e[:, -1:] + e[:, -2:-1]) - 0.5 * (e[:, 1:] + e[:, :-1])  # m_S - m_k
        torch.mul(remaining, total, out=slope).sub_(whole).mul_(2)
        slope[:, 1:].add_(passed, alpha=4)
        # The double sum is homogeneous of degree two in the weights.
        between = 0.5 * (slope * w).sum(dim=1)
    own = w * lengths
    if squared:
        torch.add(between, (own * w).sum(dim=1), alpha=1 / 3, out=value)
    else:
        torch.add(between, own.sum(dim=1), alpha=1 / 3, out=value)
    if slope is not None:
        slope.add_(own if squared else lengths, alpha=2 / 3 if squared else 1 / 3)


def _edge_gradient(weights: Tensor, squared: bool) -> Tensor:
    """Derivative by the edges [...,S+1]: of the middles 2 w_k (C_{k-1} - (C_S - C_k)), half to either edge, and of the lengths."""
    reached = weights.cumsum(dim=-1)
    by_middle = 2 * weights * (2 * reached - weights - reached[..., -1:])
    by_length = (weights.square() if squared else weights) / 3
    out = weights.new_zeros(*weights.shape[:-1], weights.shape[-1] + 1)
    out[..., :-1] += 0.5 * by_middle - by_length
    out[..., 1:] += 0.5 * by_middle + by_length
    return out
