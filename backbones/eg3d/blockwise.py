"""Evaluating planes and decoder at all samples of all rays, block by block, with a hand-written backward pass.

Written as plain operations every intermediate (coordinates, three plane reads, hidden units) is a tensor over all points, and moving
those through memory takes longer than the arithmetic. Here a block of rays at a time goes through the whole chain
while it is in the processor's cache; of the intermediates only the summed plane features are kept for the backward pass.
`reference_samples` is the readable form with the same values and gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .decoder import COLOUR_OFFSET, COLOUR_SCALE, Decoder
from .planes import sample_planes

SMALLEST_BLOCK = 8192

Axes = tuple[tuple[int, int], ...]


def evaluate_samples(
    planes: Tensor,
    decoder: Decoder,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    *,
    box_warp: float,
    axes: Axes,
    colours: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Raw density [B,R,S] and colours [B,C,R,S] at ``distances`` [B,R,S] along rays [B,R,3] through planes [B,3,F,H,W].

    Differentiable once, in planes and decoder; the rays carry no gradient.
    """
    batch, rays, count = distances.shape
    if planes.device.type != "cpu":  # blocks are a matter of the processor's cache
        return reference_samples(planes, decoder, origins, directions, distances, box_warp=box_warp, axes=axes, colours=colours)
    raw, colour = _Blockwise.apply(  # type: ignore[no-untyped-call]
        planes,
        *decoder.matrices(planes=planes.shape[1], colours=colours),
        origins.detach(),
        directions.detach(),
        distances,
        box_warp,
        axes,
        torch.is_grad_enabled(),
    )
    return raw.view(batch, rays, count), colour.view(batch, -1, rays, count) if colours else None


def reference_samples(
    planes: Tensor,
    decoder: Decoder,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    *,
    box_warp: float,
    axes: Axes,
    colours: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """`evaluate_samples` as plain operations on all points at once."""
    batch, rays, count = distances.shape
    grid = ray_grid(origins, directions, distances, box_warp, axes)
    raw, colour = decoder(sample_planes(planes, grid), colours=colours)
    return raw.view(batch, rays, count), None if colour is None else colour.view(batch, -1, rays, count)


@torch.no_grad()
def ray_grid(origins: Tensor, directions: Tensor, distances: Tensor, box_warp: float, axes: Axes) -> Tensor:
    """Plane coordinates [B,3,R*S,2] of the points at ``distances`` [B,R,S] along rays [B,R,3]; no gradient."""
    batch, rays, count = distances.shape
    scale = 2.0 / box_warp
    points = torch.addcmul(
        (origins * scale).transpose(1, 2)[..., None], (directions * scale).transpose(1, 2)[..., None], distances[:, None]
    )  # [B,3,R,S], a coordinate after the other
    grid = points.new_empty(batch, len(axes), rays, count, 2)
    for index, pair in enumerate(axes):
        for place, axis in enumerate(pair):
            grid[:, index, ..., place] = points[:, axis]
    return grid.view(batch, len(axes), rays * count, 2)


class _Blockwise(torch.autograd.Function):
    """Raw [B,N] and colours [B,C,N] of N = R * S points, from planes and the decoder's two matrices and biases."""

    @staticmethod
    def forward(
        ctx: Any,
        planes: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
        origins: Tensor,
        directions: Tensor,
        distances: Tensor,
        box_warp: float,
        axes: Axes,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, rays, count = distances.shape
        features = planes.new_empty(batch, planes.shape[2], rays * count) if keep else None
        raw = planes.new_empty(batch, rays * count)
        colour = planes.new_empty(batch, len(w2) - 1, rays * count)
        for sample, chosen, points in _blocks(planes, rays, count):
            grid = _block_grid(origins, directions, distances, sample, chosen, box_warp, axes)
            read = F.grid_sample(planes[sample], grid, align_corners=False)[..., 0]
            summed = read.sum(dim=0) if features is None else torch.sum(read, dim=0, out=features[sample, :, points])
            hidden = F.softplus(torch.addmm(b1[:, None], w1, summed))
            out = torch.addmm(b2[:, None], w2, hidden)
            raw[sample, points] = out[0]
            if len(w2) > 1:
                torch.add(COLOUR_OFFSET, out[1:].sigmoid_(), alpha=COLOUR_SCALE, out=colour[sample, :, points])
        ctx.save_for_backward(planes, w1, b1, w2, origins, directions, distances, features, colour)
        ctx.geometry = (box_warp, axes)
        ctx.set_materialize_grads(False)
        return raw, colour

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raw: Tensor | None, grad_colour: Tensor | None) -> tuple[Tensor | None, ...]:
        planes, w1, b1, w2, origins, directions, distances, features, colour = ctx.saved_tensors
        if grad_raw is None and grad_colour is None:
            return (None,) * 11
        _, rays, count = distances.shape
        grad_planes = torch.zeros_like(planes)
        grad_w1, grad_b1, grad_w2, grad_b2 = (torch.zeros_like(t) for t in (w1, b1, w2, w2[:, 0]))
        for sample, chosen, points in _blocks(planes, rays, count):
            summed = features[sample, :, points]
            before = torch.addmm(b1[:, None], w1, summed)
            grad_out = _output_gradient(grad_raw, grad_colour, colour, sample, points)
            grad_w2.addmm_(grad_out, F.softplus(before).T)
            grad_b2 += grad_out.sum(dim=1)
            grad_before = (w2.T @ grad_out).mul_(before.sigmoid_())
            grad_w1.addmm_(grad_before, summed.T)
            grad_b1 += grad_before.sum(dim=1)
            if ctx.needs_input_grad[0]:
                # All three planes get the same gradient: an expanded view serves.
                grad_read = (w1.T @ grad_before)[None, ..., None].expand(planes.shape[1], -1, -1, -1)
                grid = _block_grid(origins, directions, distances, sample, chosen, *ctx.geometry)
                grad_planes[sample] += torch.ops.aten.grid_sampler_2d_backward(grad_read, planes[sample], grid, 0, 0, False, [True, False])[
                    0
                ]
        return grad_planes, grad_w1, grad_b1, grad_w2, grad_b2, None, None, None, None, None, None


def _blocks(planes: Tensor, rays: int, count: int) -> Iterator[tuple[int, slice, slice]]:
    """Sample, rays and points of each block: small enough for the cache, and no smaller than a plane's own size asks for."""
    size = max(1, max(SMALLEST_BLOCK, planes.shape[-1] * planes.shape[-2]) // count)
    for sample in range(len(planes)):
        for first in range(0, rays, size):
            last = min(first + size, rays)
            yield sample, slice(first, last), slice(first * count, last * count)


def _block_grid(origins: Tensor, directions: Tensor, distances: Tensor, sample: int, chosen: slice, box_warp: float, axes: Axes) -> Tensor:
    """Grid [3,n,1,2] of one block of rays."""
    one = slice(sample, sample + 1)
    return ray_grid(origins[one, chosen], directions[one, chosen], distances[one, chosen], box_warp, axes)[0][:, :, None]


def _output_gradient(grad_raw: Tensor | None, grad_colour: Tensor | None, colour: Tensor, sample: int, points: slice) -> Tensor:
    """Gradient [1+C,n] before the colours' stretched sigmoid."""
    out = colour.new_empty(1 + colour.shape[1], points.stop - points.start)
    if grad_raw is None:
        out[0] = 0.0
    else:
        out[0] = grad_raw[sample, points]
    if grad_colour is None:
        out[1:] = 0.0
    elif colour.shape[1]:
        share = (colour[sample, :, points] - COLOUR_OFFSET) / COLOUR_SCALE
        torch.mul(grad_colour[sample, :, points], share.mul_(1.0 - share).mul_(COLOUR_SCALE), out=out[1:])
    return out
