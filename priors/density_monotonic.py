"""Monotonic density: seen from the front, what lies behind a point should not be thinner than the point (EG3D's second regulariser)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..core.options import check_choice, check_count, check_flag, check_number
from ..core.registry import register_prior
from ..core.scene import Field, Scene
from ..core.streams import Stream
from .base import FixedPrior, PriorResult
from .density_tv import PUBLISHED_EXTENT, density_tv

FORMS = ("detach", "fixed")
STEPS = 256  # EG3D's step is the side of the box over this


def density_monotonic(field: Field, points: Tensor, step: float, *, form: str = "detach") -> Tensor:
    """Mean of how much the field's raw output falls from points to their neighbours behind.

    L_b = mean_i relu(raw(x_i) - raw(x_i - (0, 0, step))), raw before activation; behind is -z, away from the front, which is at +z
    (EG3D's released code, its reg_type monotonic-detach and monotonic-fixed).

    Args: field; points x [B,N,3] and step > 0, world units; form: ``detach`` gives no gradient to the points in front, so that density
    behind is raised and density in front is not lowered; ``fixed`` gives it to both. Returns [B].

    >>> from priorzoo.core.scene import FieldSample
    >>> class Slope:
    ...     kind, extent = "density", 0.5
    ...     def __call__(self, points):
    ...         return FieldSample(3.0 * points[..., 2], 3.0 * points[..., 2])
    >>> density_monotonic(Slope(), torch.zeros(1, 4, 3), 0.5).tolist()          # thinner towards the back: 3 * 0.5
    [1.5]
    >>> density_monotonic(Slope(), torch.zeros(1, 4, 3), -0.5).tolist()
    [0.0]
    """
    back = points.new_tensor([0.0, 0.0, -step])
    raw = field(torch.cat([points, points + back], dim=1)).raw
    front, behind = raw.chunk(2, dim=1)
    if form == "detach":
        front = front.detach()
    return functional.relu(front - behind).mean(dim=1)


@register_prior("density_monotonic")
class DensityMonotonic(FixedPrior):
    """Raw density that does not fall from front to back, with density TV beside it where wanted.

    L_b = mean_i relu(raw(x_i) - raw(x_i - (0, 0, s))) + ``smoothness`` mean_j |raw(y_j) - raw(y_j + e_j)|, e_j ~ N(0, s^2), s the side
    of the field's box / 256; behind is -z (EG3D's released code, reg_type monotonic-detach and monotonic-fixed). Reads the field.
    EG3D's recipe is weight 10, interval 4, phase own, ``smoothness: 0.025`` (its 0.25, over the weight), ``as_published: true``.

    Options:
        form: ``detach`` gives no gradient to the points in front, ``fixed`` gives it to both.
        points: how many points x a sample. smoothness: factor of the second term, 0 leaves it out. smooth_points: how many points y.
        as_published: points are uniform in [-1,1]^3 whatever the field's box; otherwise they are uniform in the box.

    >>> from priorzoo.core.scene import FieldSample
    >>> from priorzoo.core.streams import fixed_streams
    >>> class Slope:
    ...     kind, extent = "density", 0.5
    ...     def __call__(self, points):
    ...         return FieldSample(256 * points[..., 2], points[..., 2])
    >>> DensityMonotonic(points=10)(Scene(None, field=Slope()), fixed_streams(0, 2)("density")).value.round(decimals=3).tolist()
    [1.0, 1.0]
    """

    def __init__(
        self,
        *,
        form: str = "detach",
        points: int = 2000,
        smoothness: float = 0.0,
        smooth_points: int = 1000,
        as_published: bool = False,
    ) -> None:
        super().__init__()
        check_choice(self.registry_name, "form", form, FORMS)
        check_count(self.registry_name, "points", points)
        check_number(self.registry_name, "smoothness", smoothness, least=0.0)
        check_count(self.registry_name, "smooth_points", smooth_points)
        check_flag(self.registry_name, "as_published", as_published)
        self.form, self.points, self.as_published = form, points, as_published
        self.smoothness, self.smooth_points = smoothness, smooth_points

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """The field."""
        return frozenset({"field"})

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; ``stream`` places the points, those of the second term last."""
        field: Field = scene.field
        extent, step = PUBLISHED_EXTENT if self.as_published else field.extent, 2 * field.extent / STEPS
        count, smooth = int(self.points), int(self.smooth_points)
        points = (stream.uniform(count, 3) * 2.0 - 1.0) * extent
        with torch.autocast(points.device.type, enabled=False):
            value = density_monotonic(field, points, step, form=self.form)
            if self.smoothness > 0:
                places = (stream.uniform(smooth, 3) * 2.0 - 1.0) * extent
                value = value + self.smoothness * density_tv(field, places, stream.normal(smooth, 3) * step)
        return PriorResult(value, pixels=torch.full_like(value, count))
