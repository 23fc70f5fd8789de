"""GOF's rendering: find the surface, sample a region about it that shrinks as training goes on, composite occupancies (section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import PriorzooError
from ...core.options import check_choice, check_number
from ...rendering.compositing import Intervals
from ...rendering.roots import METHODS, Surface, first_surface, level_of, region_distances, surface_region
from ...rendering.samples import march_occupancies, published_occupancy_weights, resampled_distances
from ...rendering.sampling import merged_order
from .blockwise import evaluate_rays
from .renderer import Rendering, RenderingOptions, finished, weighted
from .siren import Folded

COMPOSITINGS = ("volume", "surface_only")


@dataclass(frozen=True)
class SurfaceOptions(RenderingOptions):
    """How surfaces are found and what of them is rendered; ``density`` and ``last_interval`` play no part.

    ``threshold``: the occupancy that makes a surface. ``method``: secant or bisection, with ``steps`` evaluations. ``mode`` "volume"
    composites samples about the surface, "surface_only" shows the colour of the surface itself.
    """

    threshold: float = 0.5
    method: str = "secant"
    steps: int = 4
    mode: str = "volume"

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = "backbone gof"
        check_number(owner, "threshold", self.threshold, above=0.0, below=1.0)
        check_choice(owner, "root_finding", self.method, METHODS)
        check_choice(owner, "compositing", self.mode, COMPOSITINGS)
        if not isinstance(self.steps, int) or isinstance(self.steps, bool) or self.steps < 0:
            raise PriorzooError(f"{owner}: root_steps must be a whole number >= 0, got {self.steps!r}")


def render_surfaces(
    folded: Folded,
    origins: Tensor,
    directions: Tensor,
    options: SurfaceOptions,
    *,
    coarse: int,
    half_width: float,
    jitter: Tensor,
    u: Tensor | None,
    seen_along: Tensor | None,
    background: Tensor | None = None,
) -> Rendering:
    """Render rays [B,R,3] of unit directions, in the network's own units.

    Args: coarse: how many equal steps from near to far look for the surface; half_width: of the region about it; jitter [B,R,N] in [0,1)
    moves the samples of the region; u [B,R,K] in [0,1] places finer ones by the weights of the coarse (None: none); seen_along [B,R,3]:
    the directions of the colours, None for no colours; background [B,3,R] in [0,1] shows through.
    The coarse samples are not rendered and carry no gradient; gradients flow through all values and through no distance.
    """

    def evaluate(distances: Tensor, along: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        return evaluate_rays(folded, origins, directions, distances, seen_along=along, checkpoint=options.checkpoint)

    with torch.no_grad():
        steps = torch.linspace(options.near, options.far, coarse, dtype=origins.dtype, device=origins.device)
        steps = steps.expand(*origins.shape[:2], coarse)
        raw_coarse = evaluate(steps)[0]
        surface = first_surface(
            lambda t: evaluate(t[..., None])[0][..., 0], raw_coarse, steps, options.far, level=level_of(options.threshold),
            method=options.method, steps=options.steps,
        )  # fmt: skip
        if options.mode == "volume":
            drawn = region_distances(*surface_region(surface, half_width, options.near, options.far), jitter)
            if u is not None:
                fine = resampled_distances(steps, published_occupancy_weights(raw_coarse), u)
                drawn = torch.cat([drawn, fine], dim=-1)
        else:
            drawn = surface.distances[..., None]
    raw, rgb = evaluate(drawn, seen_along)
    count = min(jitter.shape[-1], drawn.shape[-1])
    if options.mode == "surface_only":
        final = _opaque(surface, options.far)
        weights = final.weights
    else:
        order = merged_order(drawn[..., :count], drawn[..., count:])[1]
        final = march_occupancies(raw.gather(-1, order), drawn.gather(-1, order), options.far, last_back=options.last_back)
        # A weighted sum has no order: the weights go back to where the colours are.
        weights = torch.zeros_like(raw).scatter(-1, order, final.weights)
    colours = None if rgb is None else weighted(rgb, weights)
    return Rendering(finished(colours, final, options, background), final, drawn, raw, count, colours, surface)


def _opaque(surface: Surface, far: float) -> Intervals:
    """The march of rays that end at their surface; those without one meet nothing."""
    distances = surface.distances[..., None]
    opacity = surface.found.to(distances)
    edges = torch.cat([distances, torch.full_like(distances, far)], dim=-1)
    return Intervals(opacity[..., None], opacity[..., None], distances, edges, opacity, 1.0 - opacity)
