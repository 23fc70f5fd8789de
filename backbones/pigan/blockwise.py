"""Evaluating a FiLM-SIREN at all samples of all rays, block by block, with a hand-written backward pass.

As plain operations every layer writes its sums and its sines to memory and reads them back, and new memory has to be cleared: about a
fifth of the time of the matrix products. Here a block of points goes through all layers while it is in the processor's cache. For the
backward only the sums before each sine are kept, half of what plain operations keep; sine and cosine are taken again from them.
`siren.evaluate_plainly` is the readable form with the same values and gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint as recomputed

from .siren import Folded, evaluate_plainly

BLOCK = 2048
"""Points of a block for each thread: 2 MB of float32 a layer of 256, a second-level cache's size or two."""


def evaluate_rays(
    folded: Folded,
    origins: Tensor,
    directions: Tensor,
    distances: Tensor,
    *,
    seen_along: Tensor | None,
    checkpoint: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Raw geometry [B,R,S] and colours [B,R,S,3] at ``distances`` [B,R,S] along rays [B,R,3], in the network's own units.

    ``seen_along`` [B,R,3]: the directions that colours are seen along, None for no colours. Differentiable once, in the network; rays and
    distances carry no gradient. With ``checkpoint`` nothing is kept for the backward, which computes all of it again.
    """
    batch, rays, count = distances.shape
    points = (origins[:, :, None] + directions[:, :, None] * distances[..., None]).flatten(1, 2).detach()
    if points.device.type != "cpu":  # blocks are a matter of the processor's cache
        views = None if seen_along is None else seen_along[:, :, None].expand(-1, -1, count, -1).reshape(batch, -1, 3)
        raw, rgb = (_recomputed if checkpoint and torch.is_grad_enabled() else evaluate_plainly)(folded, points, views)
    else:
        tensors = [t for layer in folded.layers for t in layer]
        raw, rgb = _Blockwise.apply(  # type: ignore[no-untyped-call]
            points, seen_along, len(folded.layers), torch.is_grad_enabled() and not checkpoint,
            *tensors, *folded.colour, *folded.geometry, *folded.rgb,
        )  # fmt: skip
    return raw.view(batch, rays, count), None if rgb is None else rgb.view(batch, rays, count, 3)


def _recomputed(folded: Folded, points: Tensor, views: Tensor | None) -> tuple[Tensor, Tensor | None]:
    made: tuple[Tensor, Tensor | None] = recomputed(evaluate_plainly, folded, points, views, use_reentrant=False, preserve_rng_state=False)
    return made


class _Network:
    """One sample's matrices, unpacked from the flat list of tensors, or their gradients to be added to."""

    def __init__(self, tensors: tuple[Tensor, ...], layers: int, sample: int) -> None:
        *own, geometry_weight, geometry_bias, rgb_weight, rgb_bias = tensors
        mine = [t[sample] for t in own]
        self.layers = [(mine[2 * i], mine[2 * i + 1]) for i in range(layers)]
        self.colour = mine[2 * layers :]
        self.geometry, self.rgb = (geometry_weight, geometry_bias), (rgb_weight, rgb_bias)


class _Blockwise(torch.autograd.Function):
    """Raw [B,N] and colours [B,N,3] of N = R * S points [B,N,3]; ``views`` [B,R,3] or None."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, views: Tensor | None, layers: int, keep: bool, *tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, count, _ = points.shape
        width = len(tensors[0][0])
        sums = points.new_empty(batch, layers + (views is not None), count, width) if keep else None
        raw = points.new_empty(batch, count)
        rgb = None if views is None else points.new_empty(batch, count, 3)
        for sample, rows in _blocks(points, views):
            network = _Network(tensors, layers, sample)
            h = points[sample, rows]
            for i, (weight, bias) in enumerate(network.layers):
                h = _sum(bias, h, weight, None if sums is None else sums[sample, i, rows]).sin()
            torch.addmv(network.geometry[1], h, network.geometry[0][0], out=raw[sample, rows])
            if views is not None and rgb is not None:
                before = _colour_sum(network, h, views[sample], rows, count, None if sums is None else sums[sample, layers, rows])
                torch.sigmoid(torch.addmm(network.rgb[1], before.sin(), network.rgb[0].T), out=rgb[sample, rows])
        ctx.layers = layers
        ctx.save_for_backward(points, views, sums, rgb, *tensors)
        ctx.set_materialize_grads(False)
        return raw, rgb

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raw: Tensor | None, grad_rgb: Tensor | None) -> tuple[Tensor | None, ...]:
        points, views, sums, rgb, *tensors = ctx.saved_tensors
        if grad_raw is None and grad_rgb is None:
            return (None,) * (4 + len(tensors))
        grads = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]
        layers, count = ctx.layers, points.shape[1]
        for sample, rows in _blocks(points, views):
            network, into = _Network(tuple(tensors), layers, sample), _Network(tuple(grads), layers, sample)
            before = _sums_again(network, points[sample, rows]) if sums is None else list(sums[sample, :layers, rows])
            h = before[-1].sin()
            slope: Tensor | None = None
            if grad_rgb is not None and rgb is not None:
                seen = _colour_sum(network, h, views[sample], rows, count) if sums is None else sums[sample, layers, rows]
                linear = torch.mul(rgb[sample, rows], 1.0 - rgb[sample, rows]).mul_(grad_rgb[sample, rows])
                slope = _colour_backward(network, into, h, views[sample], rows, count, seen, linear)
            if grad_raw is not None:
                g = grad_raw[sample, rows]
                into.geometry[0][0].addmv_(h.T, g)
                into.geometry[1].add_(g.sum())
                slope = torch.outer(g, network.geometry[0][0]) if slope is None else slope.addr_(g, network.geometry[0][0])
            assert slope is not None
            for i in reversed(range(layers)):
                slope.mul_(before[i].cos())
                h = before[i - 1].sin() if i else points[sample, rows]
                into.layers[i][0].addmm_(slope.T, h)
                into.layers[i][1].add_(slope.sum(dim=0))
                slope = slope @ network.layers[i][0] if i else slope
        return (None, None, None, None, *grads)


def _blocks(points: Tensor, views: Tensor | None) -> Iterator[tuple[int, slice]]:
    """Sample and points of each block: whole rays."""
    batch, count, _ = points.shape
    per_ray = 1 if views is None else count // views.shape[1]
    size = max(1, BLOCK * torch.get_num_threads() // per_ray) * per_ray
    for sample in range(batch):
        for first in range(0, count, size):
            yield sample, slice(first, min(first + size, count))


def _sum(bias: Tensor, h: Tensor, weight: Tensor, out: Tensor | None) -> Tensor:
    """What a sine is taken of, [n,H], written into ``out`` where that is given."""
    return torch.addmm(bias, h, weight.T) if out is None else torch.addmm(bias, h, weight.T, out=out)


def _sums_again(network: _Network, h: Tensor) -> list[Tensor]:
    sums: list[Tensor] = []
    for weight, bias in network.layers:
        sums.append(_sum(bias, h, weight, None))
        h = sums[-1].sin()
    return sums


def _colour_sum(network: _Network, h: Tensor, views: Tensor, rows: slice, count: int, out: Tensor | None = None) -> Tensor:
    """What the colours' sine is taken of: all samples of a ray share its direction's part."""
    weight, of_direction, bias = network.colour
    total = _sum(bias, h, weight, out)
    mine = _views(views, rows, count)
    total.view(len(mine), -1, total.shape[1]).add_((mine @ of_direction.T)[:, None])
    return total


def _views(views: Tensor, rows: slice, count: int) -> Tensor:
    per_ray = count // len(views)
    return views[rows.start // per_ray : rows.stop // per_ray]


def _colour_backward(
    network: _Network, into: _Network, h: Tensor, views: Tensor, rows: slice, count: int, seen: Tensor, linear: Tensor
) -> Tensor:
    """Add the colours' gradients, from that before the sigmoid [n,3]; return that of the features [n,H]."""
    into.rgb[0].addmm_(linear.T, seen.sin())
    into.rgb[1].add_(linear.sum(dim=0))
    slope = (linear @ network.rgb[0]).mul_(seen.cos())
    weight, of_direction, bias = into.colour
    mine = _views(views, rows, count)
    per_ray = slope.view(len(mine), -1, slope.shape[1]).sum(dim=1)
    weight.addmm_(slope.T, h)
    of_direction.addmm_(per_ray.T, mine)
    bias.add_(per_ray.sum(dim=0))
    return slope @ network.colour[0]
