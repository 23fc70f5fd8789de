"""Density TV: the raw density of neighbouring points should be alike (EG3D's density regularisation)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.options import check_count, check_flag, check_number
from ..core.registry import PRIORS, register_prior
from ..core.scene import Field, Scene
from ..core.streams import Stream
from .base import FixedPrior, PriorResult

PUBLISHED_EXTENT = 1.0  # EG3D's code draws from [-1,1]^3 whatever the box

# The other values of EG3D's reg_type. Two of them are accepted by its command line and written nowhere: training goes on without.
for _name in ("l1-alt", "total-variation"):
    PRIORS.refuse(_name, "EG3D's command line accepts this regulariser, its released code computes nothing for it; density_tv is its 'l1'")
PRIORS.refuse("l1", "EG3D's regulariser of this name is density_tv")
for _form in ("detach", "fixed"):
    PRIORS.refuse(f"monotonic-{_form}", f"EG3D's regulariser of this name is density_monotonic with form: {_form}")


def density_tv(field: Field, points: Tensor, offsets: Tensor) -> Tensor:
    """Mean absolute difference of the field's raw output between points and their partners.

    L_b = mean_i |raw(x_i) - raw(x_i + d_i)|, raw before activation (EG3D, Chan et al. 2022: its released code).

    Args: field; points x and offsets d [B,N,3], world units. Returns [B].

    >>> from priorzoo.core.scene import FieldSample
    >>> class Slope:
    ...     kind, extent = "density", 0.5
    ...     def __call__(self, points):
    ...         return FieldSample(3.0 * points[..., 0], 3.0 * points[..., 0])
    >>> density_tv(Slope(), torch.zeros(1, 2, 3), torch.tensor([[[1.0, 0.0, 0.0], [-1.0, 5.0, 0.0]]])).tolist()
    [3.0]
    """
    # One query of twice the points is cheaper than two, and is what the published code does.
    raw = field(torch.cat([points, points + offsets], dim=1)).raw
    first, second = raw.chunk(2, dim=1)
    return (first - second).abs().mean(dim=1)


@register_prior("density_tv")
class DensityTV(FixedPrior):
    """Total variation of the raw density at random points.

    L_b = mean_i |raw(x_i) - raw(x_i + d_i)|, d_i ~ N(0, ``distance``^2) (EG3D's released training code). Reads
    the field. EG3D's recipe is weight 0.25, interval 4, phase own, ``as_published: true``.

    Options:
        points: how many points N a sample. distance: standard deviation of the partner's offset, in world units.
        as_published: points are uniform in [-1,1]^3 whatever the field's box, so that 7 of 8 miss EG3D's box of side 1;
        otherwise they are uniform in the box.

    >>> from priorzoo.core.scene import FieldSample
    >>> from priorzoo.core.streams import fixed_streams
    >>> class Constant:
    ...     kind, extent = "density", 0.5
    ...     def __call__(self, points):
    ...         return FieldSample(points.sum(dim=-1) * 0, points.sum(dim=-1) * 0)
    >>> DensityTV(points=10)(Scene(None, field=Constant()), fixed_streams(0, 2)("density")).value.tolist()
    [0.0, 0.0]
    """

    def __init__(self, *, points: int = 1000, distance: float = 0.004, as_published: bool = False) -> None:
        super().__init__()
        check_count(self.registry_name, "points", points)
        check_number(self.registry_name, "distance", distance, above=0.0)
        check_flag(self.registry_name, "as_published", as_published)
        self.points, self.distance, self.as_published = points, distance, as_published

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """The field."""
        return frozenset({"field"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the mean difference of each sample; ``stream`` places the points."""
        field: Field = scene.field
        extent = PUBLISHED_EXTENT if self.as_published else field.extent
        count = int(self.points)
        points = (stream.uniform(count, 3) * 2.0 - 1.0) * extent
        offsets = stream.normal(count, 3) * self.distance
        with torch.autocast(points.device.type, enabled=False):
            value = density_tv(field, points, offsets)
        return PriorResult(value, pixels=torch.full_like(value, count))
