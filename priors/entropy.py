"""Entropies of rays: along the ray (InfoNeRF) and of its opacity (DreamFusion's losses in common implementations)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..core.options import check_choice, check_number
from ..core.registry import register_prior
from ..core.scene import Samples, Scene
from ..core.streams import Stream
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult

FORMS = ("infonerf", "as_published")
SMALL = 1e-10


def _entropy_terms(share: Tensor) -> Tensor:
    """-p ln p, with 0 at p = 0 and a finite slope there."""
    return -share * share.clamp_min(SMALL).log()


def ray_entropy(alpha: Tensor, opacity: Tensor, *, min_opacity: float = 0.1) -> Tensor:
    """Mean entropy, in bits, of where along the ray it is blocked.

    L_b = mean_rays 1[opacity > threshold] H(p), p_i = alpha_i / sum_j alpha_j, H(p) = -sum_i p_i log2 p_i (InfoNeRF, Kim et al. 2022,
    eqs. 4 to 7). The mask is constant to the gradient.

    Args: alpha [B,R,S] in [0,1]; opacity [B,R] in [0,1]. Returns [B], in [0, log2 S].

    >>> ray_entropy(torch.tensor([[[0.5, 0.5, 0.0]]]), torch.ones(1, 1)).item()
    1.0
    """
    alpha = as_real(alpha)
    share = alpha / (alpha.sum(dim=-1, keepdim=True) + SMALL)
    entropy = _entropy_terms(share).sum(dim=-1) / math.log(2.0)
    return torch.where(opacity.detach() > min_opacity, entropy, 0.0).mean(dim=1)


def published_ray_entropy(raw: Tensor) -> Tensor:
    """Entropy, in nats, of the softmax of a ray's raw densities, mean over rays: what BallGAN's released code computes.

    Args: raw [B,R,S], before activation. Returns [B], in [0, ln S].

    >>> round(published_ray_entropy(torch.zeros(1, 1, 2)).item(), 4)       # ln 2
    0.6931
    """
    log_share = torch.log_softmax(as_real(raw), dim=-1)
    return -(log_share.exp() * log_share).sum(dim=-1).mean(dim=1)


def opacity_entropy(opacity: Tensor) -> Tensor:
    """Mean binary entropy, in nats, of the rays' opacity.

    L_b = mean_rays { -a ln a - (1 - a) ln(1 - a) }: rays should be opaque or empty (the opaqueness loss of threestudio's DreamFusion).

    Args: opacity a [B,1,h,w] or [B,R] in [0,1]. Returns [B], in [0, ln 2].

    >>> round(opacity_entropy(torch.tensor([[0.5, 1.0]])).item(), 4)       # ln 2 / 2
    0.3466
    """
    a = as_real(opacity).flatten(1)
    return (_entropy_terms(a) + _entropy_terms(1.0 - a)).mean(dim=1)


@register_prior("ray_entropy")
class RayEntropy(FixedPrior):
    """Ray entropy: a ray should be blocked in one place.

    L_b = mean_rays 1[opacity > ``min_opacity``] (-sum_i p_i log2 p_i), p_i = alpha_i / sum_j alpha_j (InfoNeRF, Kim et al. 2022, eqs.
    4 to 7); reads alpha and opacity, or the samples as drawn.

    Options:
        form: ``infonerf``; ``as_published``, the entropy of the softmax of the raw densities of the fine samples (BallGAN's code).
        min_opacity: rays that are less opaque do not count, in [0, 1).

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, alpha=torch.tensor([[[0.5, 0.5]]]), opacity=torch.full((1, 1, 1, 1), 0.75))
    >>> RayEntropy()(scene, fixed_streams(0, 1)("entropy")).value.tolist()
    [1.0]
    """

    def __init__(self, *, form: str = "infonerf", min_opacity: float = 0.1) -> None:
        super().__init__()
        check_choice(self.registry_name, "form", form, FORMS)
        check_number(self.registry_name, "min_opacity", min_opacity, least=0.0, below=1.0)
        self.form, self.min_opacity = form, min_opacity

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Alpha and opacity; the samples as drawn for the published form."""
        return frozenset({"samples"} if options.get("form") == "as_published" else {"alpha", "opacity"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the mean entropy of each sample's rays; draws nothing from ``stream``."""
        if self.form == "as_published":
            samples: Samples = scene.samples
            with torch.autocast(samples.raw.device.type, enabled=False):
                value = published_ray_entropy(samples.raw[..., samples.coarse :])
            return PriorResult(value, pixels=torch.full_like(value, samples.raw.shape[1]).detach())
        opacity = scene.opacity.flatten(1)
        with torch.autocast(opacity.device.type, enabled=False):
            value = ray_entropy(scene.alpha, opacity, min_opacity=self.min_opacity)
        return PriorResult(value, pixels=torch.full_like(value, opacity.shape[1]).detach())


@register_prior("opacity_entropy")
class OpacityEntropy(FixedPrior):
    """Opacity entropy: rays should be opaque or empty, with a force that grows towards both ends.

    L_b = mean_rays { -a ln a - (1 - a) ln(1 - a) }, a = opacity [B,1,h,w] (threestudio's opaqueness loss for DreamFusion). Milder in the
    middle than `background_separation`.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, opacity=torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))
    >>> OpacityEntropy()(scene, fixed_streams(0, 1)("entropy")).value.tolist()
    [0.0]
    """

    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Opacity."""
        return frozenset({"opacity"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the mean entropy of each sample's rays; draws nothing from ``stream``."""
        with torch.autocast(scene.opacity.device.type, enabled=False):
            value = opacity_entropy(scene.opacity)
        return PriorResult(value, pixels=torch.full_like(value, scene.opacity[0].numel()).detach())
