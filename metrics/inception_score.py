"""Inception Score: how sure a classifier is of each generated image, and how many classes they show together."""

from __future__ import annotations

from torch import Tensor

from ..core.errors import PriorzooError
from .distances import Distance
from .fidelity import inception_score as published_score

SPLITS, SPLIT_LEAST = 10, 100  # ten splits where each has a hundred images, else one


def splits_of(images: int) -> int:
    """Into how many splits so many images are cut: ten, as in the literature, or one where there are few.

    >>> splits_of(50_000), splits_of(999)
    (10, 1)
    """
    return SPLITS if images >= SPLITS * SPLIT_LEAST else 1


def inception_score(logits: Tensor) -> Distance:
    """Inception Score of classifier logits [n,classes] and its terms, one per image.

    exp(mean_i KL(p(y|x_i) || p(y))), the mean over ``splits_of(n)`` random splits (Salimans et al. 2016), by
    torch-fidelity. To first order an image that weighs more moves the exponent by its own KL minus the mean (the
    infinitesimal jackknife), hence terms value (1 + KL_i - mean KL).

    Raises PriorzooError for logits that are not finite or not [n,classes].

    >>> import torch
    >>> round(inception_score(100 * torch.eye(5).repeat(4, 1)).value, 6)  # five classes, each image sure of one
    5.0
    """
    if logits.ndim != 2 or len(logits) < 2 or not bool(logits.isfinite().all()):
        raise PriorzooError(f"Inception Score: logits must be finite and [at least 2 images, classes], got {list(logits.shape)}")
    value = published_score(logits, splits=splits_of(len(logits)))
    log_p = logits.double().log_softmax(1)
    p = log_p.exp()
    divergence = (p * (log_p - p.mean(0).clamp_min(1e-300).log())).sum(1)
    return Distance(value, value * (1 + divergence - divergence.mean()))
