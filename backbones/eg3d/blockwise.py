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
from torch.utils.checkpoint import checkpoint as recomputed

from .decoder import COLOUR_OFFSET, COLOUR_SCALE, Decoder
from .planes import plane_grid, sample_planes

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
    checkpoint: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Raw density [B,R,S] and colours [B,C,R,S] at ``distances`` [B,R,S] along rays [B,R,3] through planes [B,3,F,H,W].

    Differentiable once, in planes and decoder; the rays carry no gradient. With ``checkpoint`` nothing but the results is kept for the
    backward, which computes the rest again: here the reads of the planes, on other devices everything, one sample at a time.
    """
    batch, rays, count = distances.shape
    if planes.device.type != "cpu":  # blocks are a matter of the processor's cache
        evaluate = checkpointed_samples if checkpoint and torch.is_grad_enabled() else reference_samples
        return evaluate(planes, decoder, origins, directions, distances, box_warp=box_warp, axes=axes, colours=colours)
    raw, colour = _Blockwise.apply(  # type: ignore[no-untyped-call]
        planes,
        *decoder.matrices(planes=planes.shape[1], colours=colours),
        *plane_lines(origins, directions, box_warp, axes),
        distances,
        torch.is_grad_enabled() and not checkpoint,
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
    points = origins[:, :, None] + directions[:, :, None] * distances[..., None]
    grid = plane_grid(points.flatten(1, 2), box_warp, axes)
    raw, colour = decoder(sample_planes(planes, grid), colours=colours)
    return raw.view(batch, rays, count), None if colour is None else colour.view(batch, -1, rays, count)


def checkpointed_samples(
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
    """`reference_samples`, sample by sample, each computed again in the backward instead of kept (Chen et al. 2016)."""

    def evaluate(*given: Tensor) -> tuple[Tensor, Tensor | None]:
        own_planes, *rays = given
        return reference_samples(own_planes, decoder, *rays, box_warp=box_warp, axes=axes, colours=colours)

    parts = []
    for sample in range(len(planes)):
        given = (t[sample : sample + 1] for t in (planes, origins, directions, distances))
        parts.append(recomputed(evaluate, *given, use_reentrant=False, preserve_rng_state=False))  # no random numbers are drawn inside
    return torch.cat([raw for raw, _ in parts]), torch.cat([colour for _, colour in parts]) if colours else None


@torch.no_grad()
def plane_lines(origins: Tensor, directions: Tensor, box_warp: float, axes: Axes) -> tuple[Tensor, Tensor]:
    """Each ray [B,R,3] as lines in the planes' coordinates: start and step per unit distance, [B,2P,R] each (x, y of every plane)."""
    order = [axis for pair in axes for axis in pair]
    start, step = ((rays * (2.0 / box_warp)).transpose(1, 2)[:, order] for rays in (origins, directions))
    return start, step


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
        starts: Tensor,
        steps: Tensor,
        distances: Tensor,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        batch, rays, count = distances.shape
        features = planes.new_empty(batch, planes.shape[2], rays * count) if keep else None
        raw = planes.new_empty(batch, rays * count)
        colour = planes.new_empty(batch, len(w2) - 1, rays * count)
        for sample, chosen, points in _blocks(planes, rays, count):
            read = _read(planes, starts, steps, distances, sample, chosen)
            summed = read.sum(dim=0) if features is None else torch.sum(read, dim=0, out=features[sample, :, points])
            hidden = F.softplus(torch.addmm(b1[:, None], w1, summed))
            out = torch.addmm(b2[:, None], w2, hidden)
            raw[sample, points] = out[0]
            if len(w2) > 1:
                torch.add(COLOUR_OFFSET, out[1:].sigmoid_(), alpha=COLOUR_SCALE, out=colour[sample, :, points])
        ctx.save_for_backward(planes, w1, b1, w2, starts, steps, distances, features, colour)
        ctx.set_materialize_grads(False)
        return raw, colour

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raw: Tensor | None, grad_colour: Tensor | None) -> tuple[Tensor | None, ...]:
        planes, w1, b1, w2, starts, steps, distances, features, colour = ctx.saved_tensors
        if grad_raw is None and grad_colour is None:
            return (None,) * 9
        _, rays, count = distances.shape
        grad_planes = torch.zeros_like(planes, memory_format=torch.contiguous_format)  # the order in which the operator returns it
        grad_w1, grad_b1, grad_w2, grad_b2 = (torch.zeros_like(t) for t in (w1, b1, w2, w2[:, 0]))
        for sample, chosen, points in _blocks(planes, rays, count):
            summed = _read(planes, starts, steps, distances, sample, chosen).sum(dim=0) if features is None else features[sample, :, points]
            before = torch.addmm(b1[:, None], w1, summed)
            grad_out = _output_gradient(grad_raw, grad_colour, colour, sample, points)
            grad_w2.addmm_(grad_out, F.softplus(before).T)
            grad_b2 += grad_out.sum(dim=1)
            grad_before = (w2.T @ grad_out).mul_(before.sigmoid_())
            grad_w1.addmm_(grad_before, summed.T)
            grad_b1 += grad_before.sum(dim=1)
            if ctx.needs_input_grad[0]:
                # All planes get the same gradient; three copies are read faster than an expanded view.
                grad_read = (w1.T @ grad_before)[None, :, None].repeat(planes.shape[1], 1, 1, 1)
                grid = _block_grid(starts, steps, distances, sample, chosen)
                grad_planes[sample] += torch.ops.aten.grid_sampler_2d_backward(
                    grad_read, planes[sample], grid, 0, 0, False, [True, False]
                )[0]  # fmt: skip
        return grad_planes, grad_w1, grad_b1, grad_w2, grad_b2, None, None, None, None


def _blocks(planes: Tensor, rays: int, count: int) -> Iterator[tuple[int, slice, slice]]:
    """Sample, rays and points of each block: small enough for the cache, and no smaller than a plane's own size asks for."""
    size = max(1, max(SMALLEST_BLOCK, planes.shape[-1] * planes.shape[-2]) // count)
    for sample in range(len(planes)):
        for first in range(0, rays, size):
            last = min(first + size, rays)
            yield sample, slice(first, last), slice(first * count, last * count)


def _read(planes: Tensor, starts: Tensor, steps: Tensor, distances: Tensor, sample: int, chosen: slice) -> Tensor:
    """Features [P,F,n] that one block of rays reads from the planes."""
    return F.grid_sample(planes[sample], _block_grid(starts, steps, distances, sample, chosen), align_corners=False)[:, :, 0]


def _block_grid(starts: Tensor, steps: Tensor, distances: Tensor, sample: int, chosen: slice) -> Tensor:
    """Grid [P,1,n,2] of one block of rays: a view of [P,2,1,n], which is written, and read, without strides."""
    lines = torch.mul(steps[sample, :, chosen, None], distances[sample, chosen]).add_(starts[sample, :, chosen, None])
    return lines.view(-1, 2, 1, lines.shape[1] * lines.shape[2]).permute(0, 2, 3, 1)


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
