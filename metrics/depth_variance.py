"""How concentrated the weights along a ray are: GOF's weighted variance of depth, "sum of t_i variance"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..backbones.base import Backbone
from ..core.camera import Camera
from ..core.errors import PriorzooError
from ..core.options import check_choice
from ..core.scene import Field
from ..core.streams import fixed_streams
from ..rendering.rays import PIXELS, rays_from_camera
from ..rendering.samples import published_weights

SCALE = 1e4
"""GOF's tables give the variance times this."""
MISS = 1.0
"""The surface's distance on a ray that meets none, in camera radii (GOF's code)."""
GUARD = 1e-5
RAYS_AT_ONCE = 4096


@dataclass(frozen=True)
class DepthVarianceProtocol:
    """What decides the measure; the defaults are what GOF published.

    ``images`` samples of one camera each, ``resolution`` pixels a side, latents truncated by ``truncation``; ``samples`` equal steps from
    ``near`` to ``far``, both included; occupancies more than ``cut`` before the surface count as nothing; a ray takes part whose weights
    sum to more than ``least_opacity``; ``refinements`` field queries find the surface between two samples; ``rays`` as in
    `rays_from_camera`. Lengths are in radii of the camera. ``near``, ``far`` and ``cut`` are the data set's: 0.8, 1.2, 0.1 for cats,
    the defaults for faces. ``cut`` is half of the region that GOF's training begins with.

    >>> DepthVarianceProtocol(images=8).differences()
    {'images': 8}
    """

    images: int = 1000
    resolution: int = 128
    truncation: float = 0.7
    samples: int = 36
    near: float = 0.88
    far: float = 1.12
    cut: float = 0.06
    least_opacity: float = 0.99
    refinements: int = 4
    rays: str = "corners"

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("resolution", 1), ("samples", 2), ("refinements", 0)):
            if getattr(self, name) < least:
                raise PriorzooError(f"depth variance: {name} must be at least {least}, got {getattr(self, name)}")
        if not 0 < self.near < self.far:
            raise PriorzooError(f"depth variance: 0 < near < far is needed, got near {self.near:g} and far {self.far:g}")
        if not 0 <= self.least_opacity < 1:
            raise PriorzooError(f"depth variance: least_opacity lies in [0, 1), got {self.least_opacity:g}")
        if not self.cut >= 0:
            raise PriorzooError(f"depth variance: cut must be at least 0, got {self.cut:g}")
        check_choice("depth variance", "rays", self.rays, PIXELS)

    def differences(self) -> dict[str, Any]:
        """What differs from the published protocol, {} where nothing does: it belongs beside every number."""
        return {name: value for name, value in asdict(self).items() if value != getattr(PUBLISHED, name)}


PUBLISHED = DepthVarianceProtocol()


def ray_variances(weights: Tensor, distances: Tensor) -> Tensor:
    """Weighted variance of the distance along every ray, [B,R], square units of ``distances``.

    m = sum w t / (sum w + 1e-5), variance = sum w (t - m)^2 / ((sum w + 1e-5) (S - 1) / S) (GOF, supplementary, and its code).

    Args: weights >= 0 and distances [B,R,S], S >= 2.

    >>> w, t = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[1.0, 3.0]]])
    >>> round(ray_variances(w, t).item(), 3)                   # 1 / (1/2)
    2.0
    """
    count = weights.shape[-1]
    if count < 2:
        raise PriorzooError(f"depth variance: at least two samples along a ray are needed, got {count}")
    total = weights.sum(dim=-1) + GUARD
    mean = (weights * distances).sum(dim=-1) / total
    return (weights * (distances - mean[..., None]).square()).sum(dim=-1) / (total * (count - 1) / count)


def depth_variance(weights: Tensor, distances: Tensor, *, least_opacity: float = PUBLISHED.least_opacity) -> Tensor:
    """Mean of `ray_variances` over the rays whose weights sum to more than ``least_opacity``, [B]; NaN where there is none.

    Takes the buffers ``weights`` and ``distances`` of a Scene too; the number then is that of the scene's own sampling.

    >>> depth_variance(torch.tensor([[[0.0, 1.0], [0.2, 0.2]]]), torch.tensor([[[1.0, 3.0], [1.0, 3.0]]])).item() < 1e-4
    True
    """
    kept = weights.sum(dim=-1) > least_opacity
    variances = ray_variances(weights, distances)
    return torch.where(kept, variances, torch.zeros_like(variances)).sum(dim=-1) / kept.sum(dim=-1)


def occupancy_weights(logits: Tensor, distances: Tensor, surface: Tensor, cut: float) -> Tensor:
    """Weights [B,R,S] of occupancies alpha = sigmoid(logit), those at or before surface - cut left out.

    w_i = alpha_i prod_{j<i} (1 - alpha_j + 1e-10).

    Args: logits, distances [B,R,S]; surface [B,R] and cut in the unit of the distances.

    >>> w = occupancy_weights(torch.zeros(1, 1, 3), torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[3.0]]), 1.5)
    >>> w.flatten().tolist()
    [0.0, 0.5, 0.25]
    """
    alpha = torch.where(distances > surface[..., None] - cut, logits.sigmoid(), torch.zeros_like(logits))
    before = torch.cat([torch.ones_like(alpha[..., :1]), 1 - alpha[..., :-1] + 1e-10], dim=-1).cumprod(dim=-1)
    return alpha * before


def surface_of_samples(
    logits: Tensor, distances: Tensor, evaluate: Callable[[Tensor], Tensor], *, refinements: int = PUBLISHED.refinements, miss: float = MISS
) -> Tensor:
    """Distance [B,R] at which each ray enters the shape: the first change of sign between samples, refined by regula falsi.

    The two samples of different sign are a bracket; t = lo - f(lo) (hi - lo) / (f(hi) - f(lo)) replaces the end of its own sign
    ``refinements`` times, and once more t is the result. A ray whose first sample is inside, or that never changes its sign, has ``miss``.

    Args: logits, distances [B,R,S], logits above 0 inside; evaluate: distances [B,R] to the logits there [B,R].

    >>> t = torch.tensor([[[0.0, 1.0, 2.0]]])
    >>> surface_of_samples(t - 1.25, t, lambda at: at - 1.25).item()
    1.25
    """
    changes = logits[..., :-1] * logits[..., 1:] < 0
    first = changes.to(torch.uint8).argmax(dim=-1, keepdim=True)
    low, high = distances.gather(-1, first)[..., 0], distances.gather(-1, first + 1)[..., 0]
    at_low, at_high = logits.gather(-1, first)[..., 0], logits.gather(-1, first + 1)[..., 0]
    found = changes.any(dim=-1) & (at_low < 0) & (logits[..., 0] < 0)
    at_low, at_high = torch.where(found, at_low, -1.0), torch.where(found, at_high, 1.0)  # no division by 0 on rays without a surface

    def between() -> Tensor:
        return low - at_low * (high - low) / (at_high - at_low)

    for _ in range(refinements):
        where = between()
        value = evaluate(where)
        outside = value < 0
        low, at_low = torch.where(outside, where, low), torch.where(outside & found, value, at_low)
        high, at_high = torch.where(outside, high, where), torch.where(~outside & found, value, at_high)
    return torch.where(found, between(), miss)


@torch.no_grad()
def depth_variance_of_field(field: Field, camera: Camera, protocol: DepthVarianceProtocol = PUBLISHED) -> Tensor:
    """`depth_variance` of a field seen by cameras [B], in squared radii of the camera, [B]; not yet times 1e4.

    An occupancy field, whose raw output is its logit, has `occupancy_weights` behind the surface that `surface_of_samples` finds; a density
    field has alpha_i = 1 - exp(-density_i (t_{i+1} - t_i)), the last interval 1e10 long, and no cut. Raises PriorzooError for other fields.
    """
    if field.kind not in ("occupancy", "density"):
        raise PriorzooError(f"depth variance: a field of kind density or occupancy is needed, got {field.kind}")
    origins, directions = rays_from_camera(camera, protocol.resolution, protocol.resolution, protocol.rays)
    radius = camera.position.norm(dim=-1)[:, None]
    steps = torch.linspace(protocol.near, protocol.far, protocol.samples, dtype=origins.dtype, device=origins.device)
    parts = []
    for begin in range(0, origins.shape[1], RAYS_AT_ONCE):
        rays = slice(begin, begin + RAYS_AT_ONCE)
        distances = steps.expand(*origins[:, rays].shape[:2], -1)
        weights = _weights(field, origins[:, rays], directions[:, rays], distances, radius, protocol)
        parts.append(weights)
    weights = torch.cat(parts, dim=1)
    return depth_variance(weights, steps.expand_as(weights), least_opacity=protocol.least_opacity)


def _weights(
    field: Field, origins: Tensor, directions: Tensor, distances: Tensor, radius: Tensor, protocol: DepthVarianceProtocol
) -> Tensor:
    """Weights of the samples at ``distances`` [B,R,S], which are in camera radii; the field is in world units."""
    world = distances * radius[..., None]
    points = origins[:, :, None] + directions[:, :, None] * world[..., None]
    sample = field(points.flatten(1, 2))
    if field.kind == "density":
        return published_weights(sample.value.view(world.shape), world)[0]
    logits = sample.raw.view(world.shape)

    def evaluate(at: Tensor) -> Tensor:
        return field(origins + directions * (at * radius)[..., None]).raw

    surface = surface_of_samples(logits, distances, evaluate, refinements=protocol.refinements)
    return occupancy_weights(logits, distances, surface, protocol.cut)


@torch.no_grad()
def depth_variances(
    backbone: Backbone,
    protocol: DepthVarianceProtocol = PUBLISHED,
    *,
    seed: int = 0,
    cameras: Camera | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The measure of ``protocol.images`` generated samples, times 1e4: float64 [images] on the processor; its mean is GOF's number.

    Sample i's latent and camera are functions of (seed, i) alone. Cameras come from the backbone's law; ``cameras`` [images] replaces it
    (needed for a backbone without one), and is then what latents are conditioned on as well. An entry is NaN where no ray is opaque: GOF's
    mean would be NaN with it, `mean_interval` leaves it out and counts the rest. ``backbone`` holds the averaged generator.
    """
    if cameras is not None and len(cameras) != protocol.images:
        raise PriorzooError(f"depth variance: {protocol.images} images need as many cameras, got {len(cameras)}")
    like = next(backbone.parameters())
    out = torch.full((protocol.images,), torch.nan, dtype=torch.float64)
    for i in range(protocol.images):
        drawn = fixed_streams(seed, 1, first=i).within("depth_variance")
        camera = (backbone.draw_cameras(1, drawn) if cameras is None else cameras[i : i + 1]).to(like.device)
        condition = None if cameras is None else camera.label()
        latents = backbone.prepare(backbone.draw(1, drawn).to(like.device), condition, truncation=protocol.truncation)
        streams = fixed_streams(seed, 1, first=i, device=like.device).within("depth_variance")
        field = backbone.field(backbone.materialise(latents, streams))
        out[i] = depth_variance_of_field(field, camera, protocol)[0].double() * SCALE
        progress(i + 1)
    return out
