"""pi-GAN's volume rendering: coarse pass, importance pass, both merged, one opacity at every sample (section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import PriorzooError
from ...rendering.compositing import Intervals
from ...rendering.roots import Surface
from ...rendering.samples import ACTIVATIONS, density_of, jittered_distances, march_samples, published_weights, resampled_distances
from ...rendering.sampling import merged_order
from .blockwise import evaluate_rays
from .siren import Folded

LAST = ("infinite", "far")


@dataclass(frozen=True)
class RenderingOptions:
    """How rays are sampled and composited; lengths in the network's own units. The defaults are the published CelebA ones.

    ``density``: relu or softplus of the raw output. ``last_interval``: the last sample stands for 1e10 of length (published), or for what
    is left up to far. ``last_back``: the last sample gets all that is left. ``checkpoint``: the backward computes the field again.
    """

    near: float = 0.88
    far: float = 1.12
    density: str = "relu"
    last_interval: str = "infinite"
    white_back: bool = False
    last_back: bool = False
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.near < self.far:
            raise PriorzooError(f"near and far must satisfy 0 <= near < far; got {self.near} and {self.far}")
        for name, allowed in (("density", ACTIVATIONS), ("last_interval", LAST)):
            if getattr(self, name) not in allowed:
                raise PriorzooError(f"{name}: {getattr(self, name)!r} is not one of {', '.join(allowed)}")


@dataclass
class Rendering:
    """``colours`` [B,3,R] in [0,1] (``white_back`` and ``last_back`` together count the background twice, as published) or None;
    the ``march``; ``drawn`` distances and ``raw`` output as drawn [B,R,N], the first ``coarse`` of them coarse; ``foreground``: the
    colours without what stands behind.
    """

    colours: Tensor | None
    march: Intervals
    drawn: Tensor
    raw: Tensor
    coarse: int
    foreground: Tensor | None = None
    surface: Surface | None = None


def render_rays(
    folded: Folded,
    origins: Tensor,
    directions: Tensor,
    options: RenderingOptions,
    *,
    jitter: Tensor,
    u: Tensor | None,
    noise: tuple[Tensor, Tensor] | None = None,
    seen_along: Tensor | None,
    background: Tensor | None = None,
) -> Rendering:
    """Render rays [B,R,3] of unit directions, in the network's own units.

    Args: jitter [B,R,S] in [0,1) moves the coarse samples; u [B,R,K] in [0,1] places the fine ones (None: coarse alone); noise: what is
    added to the raw output, [B,R,S] for the importance pass and [B,R,S+K], in the order along the ray, for the final march; seen_along
    [B,R,3]: the directions of the colours, None for no colours; background [B,3,R] in [0,1] shows through.
    The coarse samples are used again in the final march; gradients flow through all values and through no distance.
    """

    def evaluate(distances: Tensor) -> tuple[Tensor, Tensor | None]:
        return evaluate_rays(folded, origins, directions, distances, seen_along=seen_along, checkpoint=options.checkpoint)

    def march(raw: Tensor, distances: Tensor, added: Tensor | None) -> Intervals:
        density = density_of(raw if added is None else raw + added, options.density)
        return march_samples(density, distances, options.far, infinite=options.last_interval == "infinite", last_back=options.last_back)

    count = jitter.shape[-1]
    drawn = jittered_distances(options.near, options.far, count, jitter)
    raw, rgb = evaluate(drawn)
    if u is None:
        final = march(raw, drawn, None if noise is None else noise[0])
        colours = None if rgb is None else weighted(rgb, final.weights)
        return Rendering(finished(colours, final, options, background), final, drawn, raw, count, colours)
    with torch.no_grad():
        density = density_of(raw if noise is None else raw + noise[0], options.density)
        fine = resampled_distances(drawn, published_weights(density, drawn)[0], u)
    raw_fine, rgb_fine = evaluate(fine)
    distances, order = merged_order(drawn, fine)
    drawn, raw = torch.cat([drawn, fine], dim=-1), torch.cat([raw, raw_fine], dim=-1)
    final = march(raw.gather(-1, order), distances, None if noise is None else noise[1])
    colours = None
    if rgb is not None and rgb_fine is not None:
        # A weighted sum has no order: the weights go back to where the colours are, instead of the colours being sorted.
        weights = torch.zeros_like(raw).scatter(-1, order, final.weights)
        colours = weighted(rgb, weights[..., :count]) + weighted(rgb_fine, weights[..., count:])
    return Rendering(finished(colours, final, options, background), final, drawn, raw, count, colours)


def weighted(rgb: Tensor, weights: Tensor) -> Tensor:
    """Sum over samples: rgb [B,R,S,3], weights [B,R,S] to [B,3,R]."""
    return (rgb * weights[..., None]).sum(dim=2).transpose(1, 2)


def finished(colours: Tensor | None, march: Intervals, options: RenderingOptions, background: Tensor | None) -> Tensor | None:
    """Colours [B,3,R] of the foreground with white, or ``background`` [B,3,R], behind."""
    if colours is None:
        return None
    if options.white_back:
        colours = colours + march.background_transmittance[:, None]
    return colours if background is None else colours + march.background_transmittance[:, None] * background
