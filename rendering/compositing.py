"""Volume rendering with intervals between neighbouring samples (EG3D's marcher), and the expected depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = 1e-6
"""Opacity below which a ray counts as empty: its depth is ``far`` and carries no gradient."""


@dataclass
class Intervals:
    """The march of each ray over S intervals.

    ``weights``, ``alpha`` [B,R,S]; ``distances`` [B,R,S] carry the weights; ``edges`` [B,R,S+1]; ``opacity`` and
    ``background_transmittance`` [B,R] in [0,1]; ``extended`` says that the last interval reaches to far with the last
    sample's own density.
    """

    weights: Tensor
    alpha: Tensor
    distances: Tensor
    edges: Tensor
    opacity: Tensor
    background_transmittance: Tensor
    extended: bool = False


def density_from_raw(raw: Tensor) -> Tensor:
    """Density of raw network output: softplus(raw - 1), per world unit (EG3D, Mip-NeRF's shift)."""
    return F.softplus(raw - 1.0)


def march_intervals(raw: Tensor, distances: Tensor, *, activated: bool = False, last_edge: float | Tensor | None = None) -> Intervals:
    """Weights of the intervals between sorted samples.

    density_i = softplus((raw_i + raw_{i+1}) / 2 - 1): averaged before the activation; alpha_i = 1 - exp(-density_i
    delta_i); w_i = alpha_i prod_{j<i} (1 - alpha_j). The published code adds 1e-10 to each factor of the product;
    computed as the exponential of a sum, the product needs no such guard, and the two agree to about 1e-9.

    Args: raw [B,R,N] before activation (or densities >= 0 with ``activated``); distances [B,R,N], sorted, world units;
    last_edge: where a further interval behind the last sample ends, so that what is left is the background's.
    Without it there are N-1 intervals, as in EG3D; with it N (a last_edge before the last sample makes it empty).

    >>> t = torch.tensor([[[0.0, 1.0]]])
    >>> march = march_intervals(torch.full((1, 1, 2), 2.0), t, activated=True)
    >>> round(march.opacity.item(), 4)          # 1 - exp(-2)
    0.8647
    """
    middle_raw = 0.5 * (raw[..., 1:] + raw[..., :-1])
    middles = 0.5 * (distances[..., 1:] + distances[..., :-1])
    edges = distances
    if last_edge is not None:
        end = torch.maximum(distances[..., -1:], torch.as_tensor(last_edge).to(distances).expand_as(distances[..., -1:]))
        edges = torch.cat([distances, end], dim=-1)
        middle_raw = torch.cat([middle_raw, raw[..., -1:]], dim=-1)
        middles = torch.cat([middles, 0.5 * (distances[..., -1:] + end)], dim=-1)
    density = middle_raw if activated else density_from_raw(middle_raw)
    thickness = density * (edges[..., 1:] - edges[..., :-1])
    reached = thickness.cumsum(dim=-1)
    alpha = -torch.expm1(-thickness)
    weights = alpha * torch.exp(thickness - reached)
    opacity = weights.sum(dim=-1)
    return Intervals(weights, alpha, middles, edges, opacity, torch.exp(-reached[..., -1]), last_edge is not None)


def march_intervals_reference(raw: Tensor, distances: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and alpha of `march_intervals`, as the published code writes them: a running product with 1e-10."""
    density = density_from_raw((raw[..., 1:] + raw[..., :-1]) / 2)
    alpha = 1 - torch.exp(-density * (distances[..., 1:] - distances[..., :-1]))
    factors = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha + 1e-10], dim=-1)
    return alpha * factors.cumprod(dim=-1)[..., :-1], alpha


def sample_weights(march: Intervals) -> Tensor:
    """Weights [B,R,N] of the samples themselves: half of each neighbouring interval's.

    Sum_i w_i (c_i + c_{i+1}) / 2 = sum_j v_j c_j, so colours are never averaged, nor even sorted.
    """
    weights = march.weights
    if march.extended:  # the last interval has the last sample's colour alone
        inner = 0.5 * weights[..., :-1]
        return F.pad(inner, (0, 1)) + torch.cat(
            [torch.zeros_like(inner[..., :1]), inner[..., :-1], inner[..., -1:] + weights[..., -1:]], dim=-1
        )
    half = 0.5 * weights
    return F.pad(half, (0, 1)) + F.pad(half, (1, 0))


def composite_intervals(
    colours: Tensor,
    raw: Tensor,
    distances: Tensor,
    *,
    activated: bool = False,
    white_back: bool = False,
    last_edge: float | Tensor | None = None,
    background: Tensor | None = None,
) -> tuple[Tensor, Intervals]:
    """Features [B,C,R] of rays and the march behind them.

    features = sum_i w_i (c_i + c_{i+1}) / 2, plus (1 - sum w) for ``white_back``, plus T * ``background`` [B,C,R] with
    the transmittance T behind the last interval.

    Args: colours [B,C,R,N]; raw, distances [B,R,N]; the rest as in `march_intervals`.

    >>> colours, raw = torch.ones(1, 1, 1, 2), torch.full((1, 1, 2), 2.0)
    >>> features, march = composite_intervals(colours, raw, torch.tensor([[[0.0, 1.0]]]), activated=True)
    >>> torch.allclose(features[0, 0], march.opacity[0])
    True
    """
    march = march_intervals(raw, distances, activated=activated, last_edge=last_edge)
    features = (colours * sample_weights(march)[:, None]).sum(dim=-1)
    return add_background(features, march, white_back=white_back, background=background), march


def add_background(features: Tensor, march: Intervals, *, white_back: bool = False, background: Tensor | None = None) -> Tensor:
    """Put white, or background features [B,C,R], behind foreground features [B,C,R]."""
    if white_back:
        features = features + (1.0 - march.opacity)[:, None]
    if background is not None:
        features = features + march.background_transmittance[:, None] * background
    return features


def expected_depth(weights: Tensor, distances: Tensor, far: float | Tensor, *, empty: float = EMPTY) -> Tensor:
    """Expected distance of the foreground [B,R]: sum(w t) / sum(w), world units along the ray.

    Rays whose opacity is below ``empty`` have the depth ``far`` and zero gradient; gradients are finite everywhere.

    Args: weights, distances [B,R,S]; far a number or [B,R].

    >>> w = torch.zeros(1, 1, 2, requires_grad=True)
    >>> depth = expected_depth(w, torch.tensor([[[1.0, 2.0]]]), far=3.0)
    >>> depth.sum().backward()
    >>> depth.item(), w.grad.tolist()
    (3.0, [[[0.0, 0.0]]])
    """
    opacity = weights.sum(dim=-1)
    full = opacity > empty
    # The inner where keeps 0/0 out of the backward pass: a masked NaN would still be a NaN there.
    mean = (weights * distances).sum(dim=-1) / torch.where(full, opacity, torch.ones_like(opacity))
    return torch.where(full, mean, torch.as_tensor(far, dtype=mean.dtype, device=mean.device).expand_as(mean))


def published_depth(weights: Tensor, distances: Tensor, samples: Tensor) -> Tensor:
    """EG3D's depth [B,R]: sum(w t) / sum(w), NaN to infinity, clamped to the range of *all* ``samples`` of the batch.

    Its gradient is NaN on empty rays; for comparison with published images only.
    """
    depth = (weights * distances).sum(dim=-1) / weights.sum(dim=-1)
    return torch.nan_to_num(depth, nan=float("inf")).clamp(samples.min(), samples.max())
