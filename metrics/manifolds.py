"""Precision and recall of generated images: how many lie on the manifold of real images, and how much of it they cover."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..core.errors import PriorzooError

NEIGHBOURS = 3
CHUNK = 1 << 26  # distances held at once: 256 MiB of float32


def neighbour_radii(features: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """Distance from each of [n,d] features to its ``neighbours``-th nearest other, [n]: together the balls of a manifold.

    Raises PriorzooError for fewer than ``neighbours`` + 1 images.

    >>> neighbour_radii(torch.tensor([[0.0], [1.0], [3.0]]), 1).tolist()
    [1.0, 1.0, 2.0]
    """
    if len(features) <= neighbours:
        raise PriorzooError(f"precision and recall: {neighbours} nearest neighbours need {neighbours + 1} images, got {len(features)}")
    # The nearest of all is the image itself.
    return torch.cat([rows.kthvalue(neighbours + 1).values for rows in _distances(features, features)])


def inside_manifold(points: Tensor, features: Tensor, radii: Tensor) -> Tensor:
    """Which of [p,d] points lie in a ball of ``radii`` [n] about any of [n,d] features: bool [p].

    >>> inside_manifold(torch.tensor([[0.5], [9.0]]), torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, 1.0])).tolist()
    [True, False]
    """
    return torch.cat([(rows <= radii).any(1) for rows in _distances(points, features)])


def precision_and_recall(features: Tensor, reference: Tensor, neighbours: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Which generated images [n,d] lie on the real manifold, bool [n], and which real ones [m,d] on the generated one, bool [m].

    Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2): their means. A manifold is the union of balls
    about its images that reach to their ``neighbours``-th nearest neighbour. torch-fidelity's metric_prc gives the same
    two means, but not which image is where.

    Raises PriorzooError for fewer than ``neighbours`` + 1 images on either side, or different widths.

    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> [float(which.float().mean()) for which in precision_and_recall(x, x)]
    [1.0, 1.0]
    >>> [float(which.float().mean()) for which in precision_and_recall(x + 100, x)]
    [0.0, 0.0]
    """
    if features.shape[1] != reference.shape[1]:
        raise PriorzooError(f"precision and recall: widths differ, {features.shape[1]} generated and {reference.shape[1]} real")
    x, y = features.float(), reference.float()
    return inside_manifold(x, y, neighbour_radii(y, neighbours)), inside_manifold(y, x, neighbour_radii(x, neighbours))


def _distances(points: Tensor, features: Tensor) -> Iterator[Tensor]:
    """Distances [some points, n], a few points at a time."""
    for part in torch.split(points, max(1, CHUNK // len(features))):
        yield torch.cdist(part, features)
