"""Distortion: a ray's weight should lie in one place (Mip-NeRF 360), with BallGAN's two other readings of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.options import check_choice
from ..core.registry import register_prior
from ..core.scene import Samples, Scene
from ..core.streams import Stream
from ..rendering import distortion as ray
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult

FORMS = ("mipnerf360", "poster", "as_published")


def distortion(weights: Tensor, edges: Tensor, *, form: str = "mipnerf360") -> Tensor:
    """Mean distortion of a sample's rays, with distances in shares of each ray's sampled stretch.

    L_b = mean_rays { sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (s_{i+1} - s_i) } with s in [0,1] and m the middles (Mip-NeRF 360,
    Barron et al. 2022, eq. 15); ``poster`` has w_i in place of w_i^2 (BallGAN's poster).

    Args: weights [B,R,S]; edges [B,R,S+1], sorted, world units; no gradient flows into the edges. Returns [B].

    >>> distortion(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[2.0, 2.5, 3.0]]])).item()     # 1/3 of the interval's share of the ray
    0.1666666716337204
    """
    check_choice("distortion", "form", form, FORMS[:2])
    weights, edges = as_real(weights), as_real(edges.detach())
    stretch = (edges[..., -1] - edges[..., 0]).clamp_min(torch.finfo(edges.dtype).tiny)
    # Both sums are linear in distances, and know differences only: the rays' scale is taken out of their values.
    return (ray.distortion(weights, edges, squared=form == "mipnerf360") / stretch).mean(dim=1)


def published_distortion(raw: Tensor, distances: Tensor) -> Tensor:
    """What BallGAN's released code computes from a ray's fine samples as drawn.

    L_b = mean_rays { sum_{i<j} a_i a_j |s_i - s_j| + 1/3 sum_i a_i (t_{i+1} - t_i) }: a = sigmoid(raw), not weights; s is inverse distance
    scaled to [0,1] between a ray's nearest and farthest sample; the second sum runs in drawing order, its last difference repeated.

    Args: raw [B,R,S] before activation and distances t [B,R,S], both as drawn. Returns [B].

    >>> published_distortion(torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0]]])).item()        # 0.25 * 1 + (0.5 + 0.5) / 3
    0.5833333730697632
    """
    raw, t = as_real(raw), as_real(distances.detach())
    a = raw.sigmoid()
    inverse = 1.0 / t
    low, high = inverse.amin(dim=-1, keepdim=True), inverse.amax(dim=-1, keepdim=True)
    s = (inverse - high) / (low - high).clamp_max(-torch.finfo(t.dtype).tiny)
    s, order = s.sort(dim=-1)
    # Half of the symmetric double sum. Edges that make the middles s: only differences of neighbours enter.
    sorted_a = a.gather(-1, order)
    reached = sorted_a.cumsum(dim=-1)
    between = (reached[..., :-1] * (reached[..., -1:] - reached[..., :-1]) * (s[..., 1:] - s[..., :-1])).sum(dim=-1)
    steps = t[..., 1:] - t[..., :-1]
    steps = torch.cat([steps, steps[..., -1:]], dim=-1)
    return (between + (a * steps).sum(dim=-1) / 3).mean(dim=1)


@register_prior("distortion")
class Distortion(FixedPrior):
    """Distortion: the weights of a ray should lie together, in one thin surface.

    L_b = mean_rays { sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 (s_{i+1} - s_i) } (Mip-NeRF 360, Barron et al. 2022, eq. 15), with s
    the share of the ray's sampled stretch. Removes floaters and thick, foggy surfaces. Reads weights and edges, or the samples as drawn.

    Options:
        form: ``mipnerf360``; ``poster``, BallGAN's w_i in place of w_i^2; ``as_published``, what BallGAN's code computes
        (see `published_distortion`): about a thousand times larger, and partly noise.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, weights=torch.tensor([[[0.0, 1.0]]]), edges=torch.tensor([[[2.0, 2.5, 3.0]]]))
    >>> round(Distortion()(scene, fixed_streams(0, 1)("distortion")).value.item(), 4)
    0.1667
    """

    def __init__(self, *, form: str = "mipnerf360") -> None:
        super().__init__()
        check_choice(self.registry_name, "form", form, FORMS)
        self.form = form

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Weights and edges; the samples as drawn for the published form."""
        return frozenset({"samples"} if options.get("form") == "as_published" else {"weights", "edges"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the mean distortion of each sample's rays; draws nothing from ``stream``."""
        if self.form == "as_published":
            samples: Samples = scene.samples
            with torch.autocast(samples.raw.device.type, enabled=False):
                value = published_distortion(samples.raw[..., samples.coarse :], samples.distances[..., samples.coarse :])
            rays = samples.raw.shape[1]
        else:
            weights: Tensor = scene.weights
            with torch.autocast(weights.device.type, enabled=False):
                value = distortion(weights, scene.edges, form=self.form)
            rays = weights.shape[1]
        return PriorResult(value, pixels=torch.full_like(value, rays).detach())
