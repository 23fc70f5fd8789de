"""The distortion of a ray's weights: how far apart along the ray they lie. Linear in the number of intervals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 1 << 18
"""Elements that are worked on at once by each thread of a processor: few enough for its caches, too many for the calls to count."""


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
        count = weights.shape[-1]
        w, e = weights.reshape(-1, count), edges.reshape(-1, count + 1)
        keep = any(ctx.needs_input_grad[:2])
        rows = min(len(w), max(1, BLOCK * torch.get_num_threads() // count)) if w.device.type == "cpu" else len(w)
        value, slope = w.new_empty(len(w)), w.new_empty(len(w) if keep else rows, count)
        spare = w.new_empty(2, rows, count)
        for first in range(0, len(w), max(1, rows)):
            part = slice(first, min(first + rows, len(w)))
            size = part.stop - part.start
            _value_and_slope(w[part], e[part], squared, value[part], slope[part] if keep else slope[:size], spare[:, :size])
        ctx.squared = squared
        if keep:
            ctx.save_for_backward(slope.view(weights.shape), weights, *([edges] if ctx.needs_input_grad[1] else []))
        return value.view(weights.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        slope, weights, *edges = ctx.saved_tensors
        by_weights = slope * (2 * upstream)[..., None] if ctx.needs_input_grad[0] else None
        by_edges = _edge_gradient(weights, ctx.squared) * upstream[..., None] if edges else None
        return by_weights, by_edges, None


def _value_and_slope(w: Tensor, e: Tensor, squared: bool, value: Tensor, slope: Tensor, spare: Tensor) -> None:
    """Write the distortion of rows [N,S], and half its derivative by the weights; ``spare`` [2,N,S] is overwritten.

    Without the own terms the half slope is s_k = sum_j w_j |m_k - m_j|: s_{k+1} - s_k = (2 C_k - C_S) (m_{k+1} - m_k), and
    s_1 + s_S = C_S (m_S - m_1). The double sum is homogeneous of degree two in the weights, hence sum_k w_k s_k.
    """
    one, steps = spare.unbind()
    reached = torch.cumsum(w, dim=1, out=one)  # C_i
    total = reached[:, -1:].clone()
    reached.sub_(total, alpha=0.5)
    torch.sub(e[:, 2:], e[:, :-2], out=steps[:, 1:]).mul_(reached[:, :-1])  # e_{i+2} - e_i = 2 (m_{i+1} - m_i)
    stretch = 0.5 * (e[:, -1:] - e[:, :1] + e[:, -2:-1] - e[:, 1:2])  # m_S - m_1
    steps[:, :1] = 0.5 * (total * stretch - steps[:, 1:].sum(dim=1, keepdim=True))
    torch.cumsum(steps, dim=1, out=slope)
    lengths = torch.sub(e[:, 1:], e[:, :-1], out=one)
    if squared:
        slope.addcmul_(w, lengths, value=1 / 3)
    else:
        slope.add_(lengths, alpha=1 / 3)
    torch.sum(torch.mul(w, slope, out=steps), dim=1, out=value)
    if not squared:
        slope.sub_(lengths, alpha=1 / 6)


def _edge_gradient(weights: Tensor, squared: bool) -> Tensor:
    """Derivative by the edges [...,S+1]: of the middles 2 w_k (C_{k-1} - (C_S - C_k)), half to either edge, and of the lengths."""
    reached = weights.cumsum(dim=-1)
    by_middle = 2 * weights * (2 * reached - weights - reached[..., -1:])
    by_length = (weights.square() if squared else weights) / 3
    out = weights.new_zeros(*weights.shape[:-1], weights.shape[-1] + 1)
    out[..., :-1] += 0.5 * by_middle - by_length
    out[..., 1:] += 0.5 * by_middle + by_length
    return out
