"""What the separation priors make of a single ray: values and gradients of analytic rays, and a figure of them.

``python -m priorzoo.export.ray_losses OUT.png`` makes the figure of docs/explanation/separation.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.files import write_atomically
from ..priors.background_separation import background_separation
from ..priors.coverage import coverage
from ..priors.depth_variance import depth_variance
from ..priors.distortion import distortion
from ..priors.entropy import opacity_entropy, ray_entropy
from ..priors.sparsity import opacity_sparsity
from .curves import LINE_COLOURS, empty_panels, plot_bytes

INTERVALS = 96
"""Of every ray."""
SHARE = "share of its largest value"
NAMES = ("background separation", "opacity entropy", "sparsity", "coverage", "distortion", "depth variance", "ray entropy")
COLOURS = dict(zip(NAMES, LINE_COLOURS, strict=False))


@dataclass
class Panel:
    """One plot: lines by name over ``x``."""

    title: str
    across: str
    up: str
    x: NDArray[np.floating[Any]]
    lines: dict[str, NDArray[np.floating[Any]]] = field(default_factory=dict)


def ray_panels() -> list[Panel]:
    """Values and gradients of analytic rays, in the order of the figure."""
    return [*_by_opacity(), _behind_a_surface(), *_two_surfaces(), _thickness()]


def _by_opacity() -> list[Panel]:
    """One ray an image, of opacity a: values, and derivatives by a."""
    a = torch.linspace(0.0, 1.0, 201, dtype=torch.float64)
    losses: dict[str, Callable[[Tensor], Tensor]] = {
        NAMES[0]: lambda a: background_separation(1.0 - a),
        "opacity entropy": opacity_entropy,
        "sparsity": opacity_sparsity,
        "coverage": coverage,
    }
    value = Panel("a ray of opacity a", "opacity a", "value", a.numpy())
    slope = Panel("what pulls at its opacity", "opacity a", "derivative by a", a.numpy())
    for name, loss in losses.items():
        each = a[:, None].clone().requires_grad_()
        of_each = loss(each)
        (derivative,) = torch.autograd.grad(of_each.sum(), each)
        value.lines[name] = of_each.detach().numpy()
        # At the kinks there is no derivative; a gap is drawn.
        kink = {NAMES[0]: a == 0.5, "coverage": (a == 0.4) | (a == 0.9)}.get(name, torch.zeros_like(a, dtype=torch.bool))
        slope.lines[name] = torch.where(kink, torch.nan, derivative[:, 0]).numpy()
    return [value, slope]


def _along(weights: Tensor, alpha: Tensor) -> dict[str, Tensor]:
    """Values [N] of rays [N,S] over unit length, one an image."""
    edges = torch.linspace(0.0, 1.0, weights.shape[1] + 1, dtype=weights.dtype).expand(len(weights), 1, -1)
    w, middles = weights[:, None], 0.5 * (edges[..., 1:] + edges[..., :-1])
    return {
        "distortion": distortion(w, edges),
        "depth variance": depth_variance(w, middles, edges),
        "ray entropy": ray_entropy(alpha[:, None], weights.sum(dim=1, keepdim=True)),
    }


def weights_of(alpha: Tensor) -> Tensor:
    """Weights [N,S] of intervals with opacities ``alpha`` [N,S]: w_i = alpha_i prod_{j<i} (1 - alpha_j)."""
    passed = torch.cumprod(1.0 - alpha, dim=1)
    return alpha * torch.cat([torch.ones_like(passed[:, :1]), passed[:, :-1]], dim=1)


def _behind_a_surface() -> Panel:
    """A front surface of opacity a, half the ray before an opaque one; each loss by its largest value."""
    a = torch.linspace(0.0, 1.0, 201, dtype=torch.float64)
    alpha = torch.zeros(len(a), INTERVALS, dtype=torch.float64)
    alpha[:, INTERVALS // 4], alpha[:, 3 * INTERVALS // 4] = a, 1.0
    panel = Panel("a surface before an opaque one", "opacity a of the front surface", SHARE, a.numpy())
    for name, value in _along(weights_of(alpha), alpha).items():
        panel.lines[name] = (value / value.max()).numpy()
    return panel


def _two_surfaces() -> list[Panel]:
    """Two surfaces of half the weight each: values over their distance, and the derivative by a weight between and beside them."""
    count = INTERVALS // 2
    steps = torch.arange(count + 1)
    alpha = torch.zeros(len(steps), INTERVALS, dtype=torch.float64)
    alpha[:, INTERVALS // 4] = 0.5
    alpha[steps, INTERVALS // 4 + steps] = 1.0
    distance = steps.double() / INTERVALS
    apart = Panel("two surfaces, each half of the light", "distance of the two (share of the ray)", SHARE, distance.numpy())
    weights = weights_of(alpha)
    for name, value in _along(weights, alpha).items():
        apart.lines[name] = (value / value.max()).numpy()
    last = weights[-1:].clone().requires_grad_()
    middles = (np.arange(INTERVALS) + 0.5) / INTERVALS
    along = Panel("these, half a ray apart", "place along the ray", "derivative by a weight there", middles)
    values = _along(last, alpha[-1:])
    for name in ("distortion", "depth variance"):
        (slope,) = torch.autograd.grad(values[name].sum(), last, retain_graph=True)
        along.lines[name] = slope[0].numpy()
    return [apart, along]


def _thickness() -> Panel:
    """One surface whose weight is spread evenly over n intervals."""
    sizes = torch.arange(1, INTERVALS // 4 + 1)
    places = torch.arange(INTERVALS)
    weights = ((places < sizes[:, None]).double() / sizes[:, None]).roll(INTERVALS // 4, dims=1)
    remaining = 1.0 - torch.cumsum(weights, dim=1) + weights
    alpha = (weights / remaining.clamp_min(1e-12)).clamp_max(1.0)
    panel = Panel("one surface, spread over n intervals", "intervals n", SHARE, sizes.numpy().astype(float))
    for name, value in _along(weights, alpha).items():
        panel.lines[name] = (value / value.max()).numpy()
    return panel


def ray_losses_png() -> bytes:
    """Return the figure as a PNG file."""
    from matplotlib.lines import Line2D

    panels = ray_panels()
    figure, places = empty_panels(2, 3, (11.0, 6.2))
    for place, panel in zip(places, panels, strict=True):
        for name, line in panel.lines.items():
            place.plot(panel.x, line, color=COLOURS[name], linewidth=1.7)
        place.set_title(panel.title, fontsize=10)
        place.set_xlabel(panel.across)
        place.set_ylabel(panel.up)
    places[1].set_ylim(-4.0, 4.0)
    handles = [Line2D([], [], color=colour, linewidth=2) for colour in COLOURS.values()]
    figure.legend(handles, list(COLOURS), loc="outside upper left", ncols=len(COLOURS), fontsize=9)
    return plot_bytes(figure)


def main(arguments: list[str]) -> int:
    """Draw the figure into ``OUT.png``."""
    if len(arguments) != 1:
        print("usage: python -m priorzoo.export.ray_losses OUT.png", file=sys.stderr)
        return 2
    with write_atomically(arguments[0]) as beside:
        beside.write_bytes(ray_losses_png())
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
