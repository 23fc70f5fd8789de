"""Where rays first meet a surface: bracketing by samples, refinement by secant or bisection, and the region about it. No gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import PriorzooError
from ..core.options import check_choice

METHODS = ("secant", "bisection")
CLIP = 1e-4
"""How near to 0 or 1 the threshold of an occupancy may come (GOF's code)."""


@dataclass(frozen=True)
class Surface:
    """``distances`` [B,R] of the first surface along each ray, far where there is none; ``found`` [B,R] bool says which. No gradient."""

    distances: Tensor
    found: Tensor


def level_of(threshold: float) -> float:
    """The logit ln(p / (1 - p)) of an occupancy ``threshold`` p in [0,1], which is kept 1e-4 away from its ends.

    >>> level_of(0.5)
    0.0
    """
    kept = min(max(threshold, CLIP), 1.0 - CLIP)
    return math.log(kept / (1.0 - kept))


@torch.no_grad()
def first_surface(
    evaluate: Callable[[Tensor], Tensor],
    values: Tensor,
    distances: Tensor,
    far: float,
    *,
    level: float = 0.0,
    method: str = "secant",
    steps: int = 4,
) -> Surface:
    """Find where a function along each ray first rises through ``level`` (GOF, Xu et al. 2021, section 3.2; its code).

    The bracket is the first pair of neighbouring samples of which the first lies below and the second does not. A ray that starts inside
    has no surface. ``secant`` (regula falsi) takes the root of the line through the bracket's ends, ``bisection`` its middle; after each
    of ``steps`` evaluations the end of the same sign moves there.

    Args: evaluate: distances [B,R] to values [B,R]; values [B,R,S] at the sorted ``distances`` [B,R,S], S >= 2; far: the distance
    of rays without a surface.
    Raises PriorzooError for another method or number of steps.

    >>> t = torch.tensor([[[0.0, 1.0, 2.0]]])
    >>> first_surface(lambda t: t - 1.25, t - 1.25, t, 2.0).distances.item()
    1.25
    """
    check_choice("roots", "method", method, METHODS)
    if steps < 0:
        raise PriorzooError(f"roots: steps must be at least 0, got {steps}")
    height = values - level
    below = height < 0
    rises = below[..., :-1] & ~below[..., 1:]
    found = below[..., 0] & rises.any(dim=-1)
    left = rises.to(torch.uint8).argmax(dim=-1, keepdim=True)  # the first of equals

    def at(what: Tensor, index: Tensor) -> Tensor:
        return what.gather(-1, index)[..., 0]

    lo, hi = at(distances, left), at(distances, left + 1)
    of_lo, of_hi = at(height, left), at(height, left + 1)

    def estimate() -> Tensor:
        if method == "bisection":
            return 0.5 * (lo + hi)
        rise = of_hi - of_lo
        return lo - of_lo * (hi - lo) / torch.where(found, rise, torch.ones_like(rise))

    middle = estimate()
    for _ in range(steps):
        here = evaluate(torch.where(found, middle, lo)) - level
        before = here < 0
        lo, of_lo = torch.where(before, middle, lo), torch.where(before, here, of_lo)
        hi, of_hi = torch.where(before, hi, middle), torch.where(before, of_hi, here)
        middle = estimate()
    return Surface(torch.where(found, middle, torch.full_like(middle, far)), found)


@torch.no_grad()
def surface_region(surface: Surface, half_width: float, near: float, far: float) -> tuple[Tensor, Tensor]:
    """Bounds [B,R] of the region that rays are sampled in: ``half_width`` to either side of the surface, moved into [near, far].

    Rays without a surface have all of [near, far], and so have those of which the region would be longer.

    >>> found = torch.tensor([[True, True, True, False]])
    >>> lo, hi = surface_region(Surface(torch.tensor([[1.0, 1.5, 2.9, 3.0]]), found), 0.25, 1.0, 3.0)
    >>> lo.tolist(), hi.tolist()
    ([[1.0, 1.25, 2.5, 1.0]], [[1.5, 1.75, 3.0, 3.0]])
    """
    width = min(2.0 * half_width, far - near)
    lo = (surface.distances - half_width).clamp(near, far - width)
    whole = ~surface.found
    return lo.masked_fill(whole, near), (lo + width).masked_fill(whole, far)


def region_distances(low: Tensor, high: Tensor, jitter: Tensor) -> Tensor:
    """Distances [B,R,N] from ``low`` to ``high`` [B,R] inclusive, each moved by up to half a step, which may leave the region.

    Args: jitter u [B,R,N] in [0,1), N >= 2 (0.5 throughout: no randomness).

    >>> region_distances(torch.ones(1, 1), torch.full((1, 1), 3.0), torch.tensor([[[0.5, 0.5, 1.0]]])).flatten().tolist()
    [1.0, 2.0, 3.5]
    """
    count = jitter.shape[-1]
    steps = torch.linspace(0.0, 1.0, count, dtype=low.dtype, device=low.device)
    width = (high - low)[..., None]
    return low[..., None] + width * steps + (jitter - 0.5) * (width / (count - 1))
