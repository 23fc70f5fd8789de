"""Sparsity: little of space should be filled (DreamFusion, Plenoxels, PlenOctrees)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.options import check_choice, check_count, check_number
from ..core.registry import register_prior
from ..core.scene import Field, Scene
from ..core.streams import Stream
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult

FORMS = ("root", "cauchy", "exponential")
ROOT_OFFSET = 0.01


def opacity_sparsity(opacity: Tensor) -> Tensor:
    """L_b = mean_rays { sqrt(a^2 + 0.01) - 0.1 }: DreamFusion's opacity regularisation (Poole et al. 2023, appendix), 0 on empty rays.

    Args: opacity a [B,1,h,w] or [B,R] in [0,1]. Returns [B].

    >>> round(opacity_sparsity(torch.tensor([[0.0, 1.0]])).item(), 4)
    0.4525
    """
    a = as_real(opacity).flatten(1)
    return ((a.square() + ROOT_OFFSET).sqrt() - ROOT_OFFSET**0.5).mean(dim=1)


def density_sparsity(density: Tensor, *, form: str = "cauchy", length: float = 0.01) -> Tensor:
    """Sparsity of densities q >= 0, in units of one over ``length``: x = q * length.

    ``cauchy``: mean ln(1 + 2 x^2) (SNeRG; Plenoxels, Fridovich-Keil et al. 2022, eq. 4). ``exponential``: mean (1 - exp(-x)), the share of
    light lost over ``length`` (PlenOctrees, Yu et al. 2021, eq. 5).

    Args: density [B,N] per world unit; length in world units. Returns [B].

    >>> round(density_sparsity(torch.tensor([[100.0, 0.0]])).item(), 4)     # ln 3 / 2
    0.5493
    """
    check_choice("sparsity", "form", form, FORMS[1:])
    x = as_real(density) * length
    terms = torch.log1p(2.0 * x.square()) if form == "cauchy" else -torch.expm1(-x)
    return terms.mean(dim=1)


@register_prior("sparsity")
class Sparsity(FixedPrior):
    """Sparsity: empties space that the images do not ask for.

    L_b = mean_rays { sqrt(a^2 + 0.01) - 0.1 } (``root``, DreamFusion), mean ln(1 + 2 x^2) (``cauchy``, Plenoxels) or mean (1 - exp(-x))
    (``exponential``, PlenOctrees), with a the opacity and x = density * ``length`` at random points of the field's box.

    Options:
        form: ``root`` reads opacity; ``cauchy`` and ``exponential`` read the field.
        length: world units over which density counts, for the latter two. points: how many points a sample, for these.

    >>> from priorzoo.core.streams import fixed_streams
    >>> scene = Scene(None, opacity=torch.zeros(1, 1, 2, 2))
    >>> Sparsity()(scene, fixed_streams(0, 1)("sparsity")).value.tolist()
    [0.0]
    """

    def __init__(self, *, form: str = "root", length: float = 0.01, points: int = 1000) -> None:
        super().__init__()
        check_choice(self.registry_name, "form", form, FORMS)
        check_number(self.registry_name, "length", length, above=0.0)
        check_count(self.registry_name, "points", points)
        self.form, self.length, self.points = form, length, points

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Opacity, or the field."""
        return frozenset({"opacity"} if options.get("form", "root") == "root" else {"field"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; ``stream`` places the points."""
        if self.form == "root":
            with torch.autocast(scene.opacity.device.type, enabled=False):
                value = opacity_sparsity(scene.opacity)
            return PriorResult(value, pixels=torch.full_like(value, scene.opacity[0].numel()).detach())
        field: Field = scene.field
        count = int(self.points)
        points = (stream.uniform(count, 3) * 2.0 - 1.0) * field.extent
        with torch.autocast(points.device.type, enabled=False):
            value = density_sparsity(field(points).value, form=self.form, length=self.length)
        return PriorResult(value, pixels=torch.full_like(value, count).detach())
