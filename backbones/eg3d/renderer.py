"""Tri-plane volume rendering: coarse pass, importance pass, both merged and marched once more (EG3D, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import PriorzooError
from ...rendering.compositing import Intervals, add_background, march_intervals, sample_weights
from ...rendering.rays import automatic_bounds
from ...rendering.sampling import importance_distances, merged_order, stratified_distances
from .blockwise import evaluate_samples
from .decoder import Decoder
from .planes import plane_axes, plane_grid, sample_planes, sample_planes_smoothly


@dataclass(frozen=True)
class RenderingOptions:
    """How rays are sampled and composited; the defaults are the published FFHQ ones.

    ``near``, ``far``: world units along the ray, or both "auto" (where rays meet the box). ``importance``: "official" (with
    the published off-by-one) or "corrected". ``bounds``: where "auto" ends rays that miss the box, "official" (the largest near of those
    that hit) or "corrected" (their largest far). ``checkpoint``: the backward computes the samples' inner values again.
    """

    box_warp: float = 1.0
    near: float | str = 2.25
    far: float | str = 3.3
    coarse: int = 48
    fine: int = 48
    white_back: bool = False
    disparity: bool = False
    axes: str = "official"
    importance: str = "official"
    bounds: str = "official"
    checkpoint: bool = False

    def __post_init__(self) -> None:
        plane_axes(self.axes)
        if (self.near == "auto") != (self.far == "auto") or any(
            isinstance(bound, str) and bound != "auto" for bound in (self.near, self.far)
        ):
            raise PriorzooError(f"near and far are numbers, or both 'auto'; got {self.near!r} and {self.far!r}")
        if not isinstance(self.near, str) and not isinstance(self.far, str) and not 0 <= self.near < self.far:
            raise PriorzooError(f"near and far must satisfy 0 <= near < far; got {self.near} and {self.far}")
        if self.importance not in ("official", "corrected"):
            raise PriorzooError(f"importance: {self.importance!r} is not one of official, corrected")


@dataclass
class Rendering:
    """``features`` [B,C,R] in (-1,1) or None; the final ``march``; ``drawn`` distances and ``raw`` densities as drawn [B,R,N].

    ``coarse``: how many of these come first, from the coarse pass; ``foreground`` [B,C,R]: the features without what stands behind them.
    """

    features: Tensor | None
    march: Intervals
    drawn: Tensor
    raw: Tensor
    far: float | Tensor
    coarse: int
    foreground: Tensor | None = None


def query_planes(
    planes: Tensor,
    decoder: Decoder,
    points: Tensor,
    options: RenderingOptions,
    *,
    colours: bool = True,
    twice_differentiable: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Raw density [B,N] and colours [B,C,N] at world points [B,N,3]."""
    grid = plane_grid(points, options.box_warp, plane_axes(options.axes))
    sample = sample_planes_smoothly if twice_differentiable else sample_planes
    return decoder(sample(planes, grid), colours=colours)


def render_rays(
    planes: Tensor,
    decoder: Decoder,
    origins: Tensor,
    directions: Tensor,
    options: RenderingOptions,
    *,
    jitter: Tensor,
    u: Tensor | None,
    colours: bool = True,
    background: Tensor | None = None,
) -> Rendering:
    """Render rays [B,R,3] through planes [B,3,C,H,W].

    Args: jitter [B,R,S] in [0,1) places the coarse samples; u [B,R,K] in [0,1] the fine ones (None: coarse alone);
    background [B,C,R] in [0,1] shows through with what transmittance is left.
    The coarse samples are used again in the final march, not evaluated twice; gradients flow through all samples' values
    and through no distance.
    """
    count = jitter.shape[-1]
    near: float | Tensor
    far: float | Tensor
    if options.near == "auto":
        near, far = automatic_bounds(origins, directions, options.box_warp, as_published=options.bounds == "official")
    else:
        near, far = float(options.near), float(options.far)
    coarse = stratified_distances(near, far, count, jitter, disparity=options.disparity)
    axes = plane_axes(options.axes)

    def evaluate(distances: Tensor) -> tuple[Tensor, Tensor | None]:
        return evaluate_samples(
            planes, decoder, origins, directions, distances,
            box_warp=options.box_warp, axes=axes, colours=colours, checkpoint=options.checkpoint,
        )  # fmt: skip

    raw, colour = evaluate(coarse)
    if u is None:
        march = march_intervals(raw, coarse)
        features = None if colour is None else _weighted(colour, sample_weights(march))
        return Rendering(_finish(features, march, options, background), march, coarse, raw, far, count, features)

    with torch.no_grad():
        first = march_intervals(raw, coarse)
        fine = importance_distances(coarse, first.weights, u, corrected=options.importance == "corrected")
    raw_fine, colour_fine = evaluate(fine)
    distances, order = merged_order(coarse, fine)
    drawn_raw = torch.cat([raw, raw_fine], dim=-1)
    march = march_intervals(drawn_raw.gather(-1, order), distances)
    features = None
    if colour is not None and colour_fine is not None:
        # A weighted sum has no order: the weights go back to where the colours are, instead of C colours being sorted.
        weights = torch.zeros_like(drawn_raw).scatter(-1, order, sample_weights(march))
        features = _weighted(colour, weights[..., :count]) + _weighted(colour_fine, weights[..., count:])
    drawn = torch.cat([coarse, fine], dim=-1)
    return Rendering(_finish(features, march, options, background), march, drawn, drawn_raw, far, count, features)


def _weighted(colours: Tensor, weights: Tensor) -> Tensor:
    """Sum over samples: colours [B,C,R,N], weights [B,R,N] to [B,C,R]."""
    return (colours * weights[:, None]).sum(dim=-1)


def _finish(features: Tensor | None, march: Intervals, options: RenderingOptions, background: Tensor | None) -> Tensor | None:
    if features is None:
        return None
    return add_background(features, march, white_back=options.white_back, background=background) * 2.0 - 1.0
