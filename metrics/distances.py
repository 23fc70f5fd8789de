"""Distances between two sets of features: Frechet distance and kernel distance, with each image's influence on them.

The influence of image i says to first order how the distance changes when that image weighs more (the infinitesimal
jackknife). Value + influence is one term per latent whose mean is the distance itself; hence an interval, and a paired
difference between two models over the same latents, without drawing a single bootstrap sample. A test compares it
with one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import PriorzooError

CHUNK = 1 << 25  # pairs held at once: 256 MiB of float64


@dataclass(frozen=True)
class Distance:
    """A distance and its terms: ``terms`` [n] float64, one per image of the first set; their mean is ``value``."""

    value: float
    terms: Tensor


def frechet_distance(features: Tensor, reference: Tensor) -> Distance:
    """Frechet distance between Gaussians fitted to two feature sets [n,d] and [m,d].

    |mu - mu_r|^2 + tr(S + S_r - 2 (S^1/2 S_r S^1/2)^1/2) (Dowson and Landau 1982; Heusel et al. 2017, eq. 6),
    covariances with n - 1, in float64 as torch-fidelity does it. Influence: 2 (mu - mu_r).(x - mu) + (x - mu)^T (I -
    A) (x - mu) minus its mean, with A the transport map from S to S_r (the derivative of the trace term).

    Raises PriorzooError for fewer than 2 images, different widths, or features that are not finite.

    >>> x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    >>> abs(frechet_distance(x, x).value) < 1e-9, round(frechet_distance(x + 2, x).value, 6)
    (True, 12.0)
    """
    x, y = _checked(features, reference)
    mean_x, mean_y = x.mean(0), y.mean(0)
    centred = x - mean_x
    cov_x, cov_y = torch.cov(x.T).reshape(x.shape[1], -1), torch.cov(y.T).reshape(y.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_x)
    root = values.clamp_min(0).sqrt()
    half = vectors * root @ vectors.T
    inner_values, inner_vectors = torch.linalg.eigh(half @ cov_y @ half)
    inner_root = inner_values.clamp_min(0).sqrt()
    offset = mean_x - mean_y
    value = float(offset @ offset + cov_x.trace() + cov_y.trace() - 2 * inner_root.sum())
    # Directions in which the images do not vary have no derivative: their inverse root is left at zero.
    inverse = torch.where(root > root.max() * 1e-7, 1 / root.clamp_min(1e-300), torch.zeros_like(root))
    half_inverse = vectors * inverse @ vectors.T
    transport = half_inverse @ (inner_vectors * inner_root @ inner_vectors.T) @ half_inverse
    influence = 2 * centred @ offset + (centred * (centred - centred @ transport)).sum(1)
    return Distance(value, value + influence - influence.mean())


def kernel_distance(features: Tensor, reference: Tensor, value: float | None = None) -> Distance:
    """Unbiased squared maximum mean discrepancy between two feature sets [n,d] and [m,d], with KID's kernel.

    k(x, y) = (x.y / d + 1)^3 (Binkowski et al. 2018, section 4). All images at once; KID averages the same estimator
    over random subsets: where that ``value`` is given, only its terms are computed here.

    Raises PriorzooError as ``frechet_distance``.

    >>> x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    >>> kernel_distance(x + 1, x).value > kernel_distance(x + 0.1, x).value
    True
    """
    x, y = _checked(features, reference)
    n, m = len(x), len(y)
    within_x = (_kernel_sums(x, x) - _kernel_of_itself(x)) / (n - 1)
    across = _kernel_sums(x, y) / m
    if value is None:
        within_y = float((_kernel_sums(y, y) - _kernel_of_itself(y)).sum()) / (m * (m - 1))
        value = float(within_x.mean() + within_y - 2 * across.mean())
    influence = 2 * (within_x - across)
    return Distance(value, value + influence - influence.mean())


def _kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """Sum of k(x_i, y_j) over j, [n]; a few rows at a time, for 50,000 images have 2.5e9 pairs."""
    return torch.cat([(part @ y.T / x.shape[1] + 1).pow_(3).sum(1) for part in torch.split(x, max(1, CHUNK // len(y)))])


def _kernel_of_itself(x: Tensor) -> Tensor:
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _checked(features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    for name, value in (("generated", features), ("real", reference)):
        if value.ndim != 2 or len(value) < 2:
            raise PriorzooError(f"distance of features: the {name} ones must be [at least 2 images, width], got {list(value.shape)}")
        if not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).any(1).sum())
            raise PriorzooError(f"distance of features: {bad} of {len(value)} {name} images have features that are not finite")
    if features.shape[1] != reference.shape[1]:
        raise PriorzooError(f"distance of features: widths differ, {features.shape[1]} generated and {reference.shape[1]} real")
    return features.double(), reference.double()
