"""Evaluating a FiLM-SIREN at all samples of all rays, block by block, with a hand-written backward pass.

As plain operations every layer writes its sums and its sines to memory and reads them back. Here a block of points goes through all layers
while it is in the processor's cache; sines and cosines are kept for the backward, as much as plain operations keep. And the products are
oneDNN's. `siren.evaluate_plainly` is the readable form with the same values and gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint as recomputed

from .siren import Folded, evaluate_plainly

BLOCK = 1024
"""Points of a block for each thread: 1 MB of float32 a layer of 256, a second-level cache's size."""


ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")  # absent where torch was built without it


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

    def __init__(self, tensors: Sequence[Tensor], layers: int, sample: int) -> None:
        *own, geometry_weight, geometry_bias, rgb_weight, rgb_bias = tensors
        mine = [t[sample] for t in own]
        self.layers = [(mine[2 * i], mine[2 * i + 1]) for i in range(layers)]
        self.colour = mine[2 * layers :]
        self.geometry, self.rgb = (geometry_weight, geometry_bias), (rgb_weight, rgb_bias)


Wave = tuple[Tensor, Tensor]
"""Sine and cosine of a layer's sums, [n,H]; without a backward to come the cosine is the sums themselves."""


@dataclass
class _Block:
    """Some points of one sample and what they leave behind for the backward: the waves of all layers, the colours' last."""

    sample: int
    rows: slice
    waves: list[Wave]


class _Blockwise(torch.autograd.Function):
    """Raw [B,N] and colours [B,N,3] of N = R * S points [B,N,3]; ``views`` [B,R,3] or None."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, views: Tensor | None, layers: int, keep: bool, *tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        batch, count, _ = points.shape
        raw = points.new_empty(batch, count)
        rgb = None if views is None else points.new_empty(batch, count, 3)
        ctx.blocks = []
        for block in _blocks(points, views):
            network, rows = _Network(tensors, layers, block.sample), block.rows
            waves = _waves(network, points[block.sample, rows], keep)
            h = waves[-1][0]
            torch.addmv(network.geometry[1], h, network.geometry[0][0], out=raw[block.sample, rows])
            if views is not None and rgb is not None:
                waves.append(_colour_wave(network, h, views[block.sample], rows, count, keep))
                torch.sigmoid(torch.addmm(network.rgb[1], waves[-1][0], network.rgb[0].T), out=rgb[block.sample, rows])
            if keep:
                block.waves = waves
            ctx.blocks.append(block)
        ctx.layers = layers
        ctx.save_for_backward(points, views, rgb, *tensors)
        ctx.set_materialize_grads(False)
        return raw, rgb

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_raw: Tensor | None, grad_rgb: Tensor | None) -> tuple[Tensor | None, ...]:
        points, views, rgb, *tensors = ctx.saved_tensors
        if grad_raw is None and grad_rgb is None:
            return (None,) * (4 + len(tensors))
        grads = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in tensors]
        layers, count = ctx.layers, points.shape[1]
        for block in ctx.blocks:
            sample, rows = block.sample, block.rows
            network, into = _Network(tensors, layers, sample), _Network(grads, layers, sample)
            waves = block.waves or _waves(network, points[sample, rows], True)
            h = waves[layers - 1][0]
            slope: Tensor | None = None
            if grad_rgb is not None and rgb is not None:
                seen = waves[layers] if block.waves else _colour_wave(network, h, views[sample], rows, count, True)
                linear = torch.mul(rgb[sample, rows], 1.0 - rgb[sample, rows]).mul_(grad_rgb[sample, rows])
                slope = _colour_backward(network, into, h, views[sample], rows, count, seen, linear)
            if grad_raw is not None:
                g = grad_raw[sample, rows]
                into.geometry[0][0].addmv_(h.T, g)
                into.geometry[1].add_(g.sum())
                slope = torch.outer(g, network.geometry[0][0]) if slope is None else slope.addr_(g, network.geometry[0][0])
            assert slope is not None
            for i in reversed(range(layers)):
                slope.mul_(waves[i][1])
                into.layers[i][0].add_(product(slope.T, waves[i - 1][0] if i else points[sample, rows]))
                into.layers[i][1].add_(slope.sum(dim=0))
                slope = product(slope, network.layers[i][0]) if i else slope
        return (None, None, None, None, *grads)


def _blocks(points: Tensor, views: Tensor | None) -> Iterator[_Block]:
    """Sample and points of each block: whole rays."""
    batch, count, _ = points.shape
    per_ray = 1 if views is None else count // views.shape[1]
    size = max(1, BLOCK * torch.get_num_threads() // per_ray) * per_ray
    for sample in range(batch):
        for first in range(0, count, size):
            yield _Block(sample, slice(first, min(first + size, count)), [])


def _waves(network: _Network, h: Tensor, keep: bool) -> list[Wave]:
    """The waves of the points' layers; cosines too where they are to be kept."""
    waves: list[Wave] = []
    for weight, bias in network.layers:
        waves.append(_wave(affine(h, weight, bias), keep))
        h = waves[-1][0]
    return waves


def _wave(total: Tensor, keep: bool) -> Wave:
    sine = total.sin()
    return sine, total.cos_() if keep else total


def _colour_wave(network: _Network, h: Tensor, views: Tensor, rows: slice, count: int, keep: bool) -> Wave:
    """The colours' wave: all samples of a ray share its direction's part."""
    weight, of_direction, bias = network.colour
    total = affine(h, weight, bias)
    mine = _views(views, rows, count)
    total.view(len(mine), -1, total.shape[1]).add_((mine @ of_direction.T)[:, None])
    return _wave(total, keep)


def _views(views: Tensor, rows: slice, count: int) -> Tensor:
    per_ray = count // len(views)
    return views[rows.start // per_ray : rows.stop // per_ray]


def _colour_backward(
    network: _Network, into: _Network, h: Tensor, views: Tensor, rows: slice, count: int, seen: Wave, linear: Tensor
) -> Tensor:
    """Add the colours' gradients, from that before the sigmoid [n,3]; return that of the features [n,H]."""
    into.rgb[0].addmm_(linear.T, seen[0])
    into.rgb[1].add_(linear.sum(dim=0))
    slope = (linear @ network.rgb[0]).mul_(seen[1])
    weight, of_direction, bias = into.colour
    mine = _views(views, rows, count)
    per_ray = slope.view(len(mine), -1, slope.shape[1]).sum(dim=1)
    weight.add_(product(slope.T, h))
    of_direction.addmm_(per_ray.T, mine)
    bias.add_(per_ray.sum(dim=0))
    return product(slope, network.colour[0])


def affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x w^T + b of [n,in], [out,in], [out], without gradient."""
    if _by_onednn(x, weight):
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return made
    return torch.addmm(bias, x, weight.T)


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b of [n,k] and [k,m], without gradient."""
    if _by_onednn(a, b):
        made: Tensor = torch.ops.mkldnn._linear_pointwise(a, b.T, None, "none", [], "")
        return made
    return a @ b


def _by_onednn(*matrices: Tensor) -> bool:
    """Whether oneDNN multiplies: torch takes MKL, which on processors that are not Intel's reaches half of its rate.

    It is a thousand times slower on matrices with gaps between their rows: those are not given to it.
    """
    return ONEDNN and all(m.dtype == torch.float32 and (m.is_contiguous() or m.T.is_contiguous()) for m in matrices)
