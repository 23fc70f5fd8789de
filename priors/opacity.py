"""Opacity: every rendered sample should be full or empty (GOF)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..core.errors import PriorzooError
from ..core.options import check_choice
from ..core.registry import register_prior
from ..core.scene import Scene
from ..core.streams import Stream
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult

FORMS = ("intended", "as_published")
PRODUCT = 0.1 * 1.1
PUBLISHED_OFFSET = 2.20727 + math.log(PRODUCT)
"""What the published code's rounded constant leaves at 0 and 1: -5e-6."""


def binarisation(alpha: Tensor) -> Tensor:
    """L_b = mean { ln(0.1 + a) + ln(1.1 - a) - ln 0.1 - ln 1.1 }: 0 where all opacities are 0 or 1, ln(36/11) at 1/2 (GOF, section 3.4).

    Computed as ln(1 + a (1 - a) / 0.11), which is the same and exactly 0 there.

    Args: alpha a [B,R,S] in [0,1]. Returns [B].

    >>> [round(v, 4) for v in binarisation(torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]]])).tolist()]
    [0.0, 1.1856]
    """
    a = as_real(alpha).flatten(1)
    return torch.log1p(a * (1.0 - a) / PRODUCT).mean(dim=1)


@register_prior("opacity")
class Opacity(FixedPrior):
    """Opacity: makes samples full or empty, so that surfaces are sharp.

    L_b = mean over samples { ln(0.1 + a) + ln(1.1 - a) - ln 0.1 - ln 1.1 }, with a the opacity of the sample or interval [B,R,S] (GOF, Xu
    et al. 2021, section 3.4). GOF's weight grows exponentially with the optimiser's steps: a schedule of the recipe's weight.

    Options:
        form: ``intended``, or ``as_published``: a = sigmoid(red) of the samples' red channel in [0,1], seen along the rays where the field
            knows directions; it trains colour and no shape.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, alpha=torch.tensor([[[0.0, 1.0, 0.0]]]))
    >>> Opacity()(scene, fixed_streams(0, 1)("opacity")).value.tolist()
    [0.0]
    """

    def __init__(self, *, form: str = "intended") -> None:
        super().__init__()
        check_choice(self.registry_name, "form", form, FORMS)
        self.form = form

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Opacities; as published the field at the samples."""
        return frozenset({"alpha"} if options.get("form", "intended") == "intended" else {"field", "rays", "distances"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; raises PriorzooError where the published form meets a field without colours."""
        if self.form == "intended":
            with torch.autocast(scene.alpha.device.type, enabled=False):
                value = binarisation(scene.alpha)
            return PriorResult(value, pixels=torch.full_like(value, scene.alpha[0].numel()).detach())
        with torch.autocast(scene.distances.device.type, enabled=False):
            red = _red_of_samples(scene)
            value = binarisation(red.sigmoid()) + PUBLISHED_OFFSET
        return PriorResult(value, pixels=torch.full_like(value, red[0].numel()).detach())


def _red_of_samples(scene: Scene) -> Tensor:
    """The red channel [B,R*S] in [0,1] at the samples that are rendered."""
    rays, distances = scene.rays, scene.distances
    points = rays.origins[:, :, None] + rays.directions[:, :, None] * distances[..., None]
    if getattr(scene.field, "directional", False):
        seen = rays.directions[:, :, None].expand_as(points)
        colour = scene.field(points.flatten(1, 2), seen.flatten(1, 2)).colour
    else:
        colour = scene.field(points.flatten(1, 2)).colour
    if colour is None:
        raise PriorzooError("opacity: form as_published reads colours, and this backbone's field has none; set form to intended")
    return (colour[..., 0] + 1.0) / 2.0
