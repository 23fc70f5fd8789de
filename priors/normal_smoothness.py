"""Normal smoothness: the normals of a surface point and of a random neighbour should agree (GOF)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..core.options import check_choice, check_number
from ..core.registry import register_prior
from ..core.scene import Field, Scene
from ..core.streams import Stream
from ..rendering.normals import METHODS, normals_from_field
from ..rendering.selection import as_real
from .base import FixedPrior, PriorResult

FORMS = ("intended", "as_published")
SURFACES = ("expected", "root")


def neighbours(points: Tensor, u: Tensor, distance: float) -> Tensor:
    """Points [B,N,3] at ``distance`` from ``points``, in the directions of u - 1/2, u [B,N,3] in [0,1) (so the corners of a cube are
    favoured, as in GOF's code).

    >>> neighbours(torch.zeros(1, 1, 3), torch.tensor([[[0.9, 0.5, 0.5]]]), 0.1)[0, 0].tolist()
    [0.10000000149011612, 0.0, 0.0]
    """
    return points + distance * torch.nn.functional.normalize(u.to(points) - 0.5, dim=-1)


def normal_difference(first: Tensor, second: Tensor, form: str = "intended") -> Tensor:
    """Squared difference [B,N] of normals [B,N,3] of neighbours, the mean over x, y, z; ``as_published``: of x and y of each point, the
    mean over both, because the code takes the wrong axis.

    >>> a, b = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 1.0, 0.0]]])
    >>> round(normal_difference(a, b).item(), 4), normal_difference(a, a, "as_published").item()
    (0.6667, 1.0)
    """
    check_choice("normal_smoothness", "form", form, FORMS)
    if form == "intended":
        return (first - second).square().mean(dim=-1)
    return torch.stack([(n[..., 0] - n[..., 1]).square() for n in (first, second)]).mean(dim=0)


@register_prior("normal_smoothness")
class NormalSmoothness(FixedPrior):
    """Normal smoothness: bends the surface as little as the images allow.

    L_b = mean over rays with a surface { |n(x) - n(x + e u)|^2 / 3 }, with x the ray's surface point, which carries no gradient, n the
    field's unit normal, u a random direction and e the ``distance`` (GOF, Xu et al. 2021, section 3.4). The batch's mean is over all its
    rays with a surface; a sample without one has 0.

    Options:
        distance: e in world units (GOF's 0.01 with the camera at radius 1 is 0.027).
        surface: ``root`` of backbones that find roots, or ``expected``: at the expected depth, where opacity is above ``min_opacity``.
        min_opacity: for ``expected``, in [0,1).
        method: ``autograd``, differentiable again, or ``finite_differences`` for fields that are not. step: theirs, in world units.
        form: ``intended``, or ``as_published``: the x of each normal against its y, which is no smoothness.

    >>> from priorzoo.core.scene import FieldSample, Rays
    >>> from priorzoo.core.streams import fixed_streams
    >>> class Plane:
    ...     kind, extent = "density", 1.0
    ...     def __call__(self, p):
    ...         return FieldSample(-p[..., 2], -p[..., 2])
    >>> down = torch.tensor([[[0.0, 0.0, -1.0]]])
    >>> ones = torch.ones(1, 1, 1, 1)
    >>> scene = Scene(None, depth=ones, opacity=ones, rays=Rays(-down, down, 1, 1), field=Plane())
    >>> NormalSmoothness()(scene, fixed_streams(0, 1)("normals")).value.tolist()
    [0.0]
    """

    def __init__(
        self,
        *,
        distance: float = 0.027,
        surface: str = "expected",
        min_opacity: float = 0.5,
        method: str = "autograd",
        step: float = 1e-3,
        form: str = "intended",
    ) -> None:
        super().__init__()
        check_number(self.registry_name, "distance", distance, above=0.0)
        check_choice(self.registry_name, "surface", surface, SURFACES)
        check_number(self.registry_name, "min_opacity", min_opacity, least=0.0, below=1.0)
        check_choice(self.registry_name, "method", method, METHODS)
        check_number(self.registry_name, "step", step, above=0.0)
        check_choice(self.registry_name, "form", form, FORMS)
        self.distance, self.surface, self.min_opacity = distance, surface, min_opacity
        self.method, self.step, self.form = method, step, form

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """The field, the rays, and where surfaces are."""
        rooted = options.get("surface", "expected") == "root"
        return frozenset({"field", "rays"} | ({"surface_depth", "surface_mask"} if rooted else {"depth", "opacity"}))

    def forward(self, scene: Scene, stream: Stream) -> PriorResult:
        """Return the loss of each sample; ``stream`` draws the directions."""
        with torch.autocast(scene.rays.origins.device.type, enabled=False):
            if self.surface == "root":
                depth, found = scene.surface_depth, scene.surface_mask > 0.5
            else:
                depth, found = scene.depth, scene.opacity > self.min_opacity
            depth, found = as_real(depth.detach()).flatten(1), found.flatten(1)
            u = stream.uniform(depth.shape[1], 3)
            # Normals cost a double backward: only as many points as the sample with most of them has.
            order = found.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : max(1, int(found.sum(dim=1).max()))]

            def chosen(values: Tensor) -> Tensor:
                return values.gather(1, order[..., None].expand(-1, -1, 3))

            rays = scene.rays
            points = chosen(rays.origins) + chosen(rays.directions) * depth.gather(1, order)[..., None]
            value = self._difference(scene.field, points.detach(), chosen(u.to(points)))
            kept = found.gather(1, order)
            value = torch.where(kept, value, torch.zeros_like(value))
        count = kept.sum(dim=1).to(value)
        return PriorResult(value.sum(dim=1) / count.clamp_min(1), count=count, pixels=count)

    def _difference(self, field: Field, points: Tensor, u: Tensor) -> Tensor:
        both = torch.cat([points, neighbours(points, u, self.distance)], dim=1)
        first, second = normals_from_field(field, both, self.method, step=self.step).chunk(2, dim=1)
        return normal_difference(first, second, self.form)
