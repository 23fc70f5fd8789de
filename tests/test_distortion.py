"""The linear form of distortion: accuracy, blocks, memory layouts, and what it costs beside the double sum."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from priorzoo.priors.distortion import distortion as of_samples
from priorzoo.rendering import distortion as rays
from torch import Tensor
from torch.testing import assert_close

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))
import distortion as benchmark


def made(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Weights in steps of 2^-12 and edges in steps of 2^-10: float32 holds their sums and differences exactly."""
    draw = torch.Generator().manual_seed(seed)
    weights = torch.randint(0, 80, shape, generator=draw).to(dtype) / 4096
    edges = torch.randint(0, 1024, (*shape[:-1], shape[-1] + 1), generator=draw).sort(dim=-1).values.to(dtype) / 1024
    return weights.requires_grad_(), edges


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("intervals", [95, 96])
def test_float32_is_as_good_as_float64(squared: bool, intervals: int) -> None:
    weights, edges = made(2, 50, intervals)
    value = rays.distortion(weights, edges, squared=squared)
    exact_weights = weights.detach().double().requires_grad_()
    exact = rays.distortion_reference(exact_weights, edges.double(), squared=squared)
    assert value.dtype == torch.float32
    assert_close(value.double(), exact.detach(), rtol=1e-6, atol=0.0)
    (gradient,), (wanted,) = torch.autograd.grad(value.sum(), weights), torch.autograd.grad(exact.sum(), exact_weights)
    assert float((gradient - wanted).abs().max() / wanted.abs().max()) < 1e-6


def test_only_differences_of_edges_count() -> None:
    weights, edges = made(3, 7, 96)
    near, far = rays.distortion(weights, edges), rays.distortion(weights, edges + 1024.0)
    assert torch.equal(near, far)
    assert torch.equal(*(torch.autograd.grad(value.sum(), weights)[0] for value in (near, far)))


def test_the_prior_measures_distances_in_shares_of_each_ray() -> None:
    weights, edges = made(2, 9, 12)
    wide = edges * torch.linspace(1.0, 8.0, 9)[:, None] + 2.0
    shares = (edges - edges[..., :1]) / (edges[..., -1:] - edges[..., :1])
    assert_close(of_samples(weights, wide), rays.distortion(weights, shares).mean(dim=1))
    one, other = (torch.autograd.grad(of_samples(weights, e).sum(), weights)[0] for e in (wide, shares))
    assert_close(one, other)
    # A ray without any length has no distortion, and no gradient.
    value = of_samples(weights, torch.full_like(edges, 2.5))
    assert value.tolist() == [0.0, 0.0] and not torch.autograd.grad(value.sum(), weights)[0].any()


@pytest.mark.parametrize("block", [1, 20, 96, 10_000])
def test_blocks_do_not_matter(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, edges = made(2, 11, 9)
    whole = rays.distortion(weights, edges)
    (slope,) = torch.autograd.grad(whole.sum(), weights)
    monkeypatch.setattr(rays, "BLOCK", block)
    again = rays.distortion(weights, edges)
    assert torch.equal(again, whole) and torch.equal(torch.autograd.grad(again.sum(), weights)[0], slope)
    with torch.no_grad():
        assert torch.equal(rays.distortion(weights, edges), whole)


def test_layouts_repeated_backward_and_nothing_at_all() -> None:
    weights, edges = made(4, 6, 8)
    value = rays.distortion(weights, edges)
    across = rays.distortion(weights.transpose(0, 1), edges.transpose(0, 1).contiguous())
    assert torch.equal(across.t(), value)
    assert torch.equal(rays.distortion(weights[1:, ::2], edges[1:, ::2]), value[1:, ::2])
    shared = rays.distortion(weights, edges[:1, :1].expand(4, 6, 9))
    assert_close(shared, rays.distortion_reference(weights, edges[:1, :1].expand(4, 6, 9)))
    first, second = (torch.autograd.grad(value.sum(), weights, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert rays.distortion(weights[:0], edges[:0]).shape == (0, 6)


def test_it_is_differentiable_once() -> None:
    weights, edges = made(1, 2, 3)
    (slope,) = torch.autograd.grad(rays.distortion(weights, edges).square().sum(), weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_ten_times_faster_and_twenty_times_smaller_than_the_double_sum() -> None:
    """At a sixteenth of the rays; `benchmarks/distortion.py` measures the whole."""
    figures = benchmark.measure(4, 256, 96, repeats=5)
    assert figures["ratios"]["double sum to linear, time"] > 10
    assert figures["ratios"]["double sum to linear, memory"] > 20
    assert max(figures["largest_difference"].values()) < 2e-6
