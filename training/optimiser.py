"""Adam with the correction for lazy regularisation, and what is done to gradients before a step."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def lazy_ratio(intervals: Iterable[int]) -> float:
    """Return the factor m on the learning rate (and the exponent on the betas) when extra phases step the same optimiser.

    m = 1 / (1 + sum 1/n) over the intervals n of the extra phases; for one phase every n steps it is n / (n + 1)
    (StyleGAN2, appendix B).

    >>> lazy_ratio([4])
    0.8
    >>> lazy_ratio([])
    1.0
    """
    return 1.0 / (1.0 + sum(1.0 / n for n in intervals))


def lazy_adam(
    groups: Sequence[Iterable[nn.Parameter]], learning_rate: float, betas: tuple[float, float], intervals: Iterable[int]
) -> torch.optim.Adam:
    """Return Adam over parameter groups, its learning rate and betas corrected by ``lazy_ratio``."""
    ratio = lazy_ratio(intervals)
    corrected = (float(betas[0]) ** ratio if betas[0] > 0 else 0.0, float(betas[1]) ** ratio)
    params = [{"params": list(group)} for group in groups]
    return torch.optim.Adam([g for g in params if g["params"]], lr=learning_rate * ratio, betas=corrected, eps=1e-8)


def gradients_finite(parameters: Iterable[nn.Parameter]) -> bool:
    """Return whether every gradient element is finite."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return True
    # One norm a tensor, then one sum: a single NaN or infinity anywhere survives into the total.
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients, ord=1)).sum()))


def replace_nonfinite(parameters: Iterable[nn.Parameter]) -> None:
    """Replace NaN by 0 and infinities by +-1e5 in place, as EG3D's training does."""
    for p in parameters:
        if p.grad is not None:
            torch.nan_to_num(p.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=p.grad)


def first_nonfinite(named: Iterable[tuple[str, Tensor | None]]) -> str | None:
    """Return the name of the first tensor that holds a non-finite element, or None."""
    return next((name for name, t in named if t is not None and not bool(torch.isfinite(t).all())), None)
