"""The second backbone: a ball whose every buffer is a closed form, small enough to train in milliseconds.

Importing this file registers the backbone ``analytic_sphere`` and the segmenter ``analytic_colours``. It lives in the
tests to keep the contracts honest: what only EG3D can do is not a contract.

The ball about the origin has constant density q inside. A ray that crosses it from t0 to t1 has transmittance
exp(-q (t - t0)), so opacity = 1 - exp(-q L) with the chord L = t1 - t0, and expected depth =
t0 + 1/q - L exp(-q L) / (1 - exp(-q L)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from priorzoo.backbones.base import Backbone, Latents, Sampling
from priorzoo.core.camera import Camera
from priorzoo.core.errors import PriorzooError
from priorzoo.core.registry import register_backbone, register_segmenter
from priorzoo.core.scene import Field, FieldSample, Rays, Samples, Scene, Segmentation
from priorzoo.core.streams import Streams
from priorzoo.rendering.rays import rays_from_camera
from priorzoo.segmenters.base import Segmenter
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

NAMES = ("background", "skin", "left_eye", "right_eye", "hair")
COLOURS = torch.tensor([[1.0, 1.0, 1.0], [0.9, 0.6, 0.4], [0.1, 0.2, 0.8], [0.1, 0.6, 0.9], [0.2, 0.1, 0.1]])
EYE_DIRECTIONS = torch.nn.functional.normalize(torch.tensor([[-0.4, 0.2, 1.0], [0.4, 0.2, 1.0]]), dim=-1)
EYE_COSINE, FACE_COSINE = 0.94, 0.3  # an eye spans 20 degrees about its direction; the face spans 72 degrees about +z
PROVIDES = frozenset({
    "image", "image_raw", "depth", "opacity", "background_transmittance", "weights", "alpha", "distances", "edges",
    "samples", "rays", "field", "normals",
})  # fmt: skip


def class_ids(normals: Tensor) -> Tensor:
    """Class id in NAMES of points of the surface with outward normals [...,3]: eyes, skin around +z, else hair."""
    ids = torch.where(normals[..., 2] > FACE_COSINE, 1, 4)
    for eye, direction in enumerate(EYE_DIRECTIONS.to(normals)):
        ids = torch.where((normals * direction).sum(dim=-1) > EYE_COSINE, 2 + eye, ids)
    return ids


@dataclass
class Chord:
    """Where rays cross the ball: ``enter`` t0 and ``length`` L [B,R], 0 where they miss."""

    enter: Tensor
    length: Tensor
    density: float

    def inside(self, distance: Tensor) -> Tensor:
        """Length of ray inside the ball before ``distance`` [B,R,...]."""
        return (distance - self.enter[..., None]).clamp_min(0.0).minimum(self.length[..., None])

    def transmittance(self, distance: Tensor) -> Tensor:
        """exp(-q length before ``distance``)."""
        return (-self.density * self.inside(distance)).exp()

    def mean_depth(self, length: Tensor) -> Tensor:
        """Mean depth at which a piece of ``length`` l absorbs light: 1/q - l exp(-q l) / (1 - exp(-q l))."""
        optical = self.density * length
        thick = optical > 1e-2
        safe = torch.where(thick, optical, 1.0)
        exact = 1.0 - safe / safe.expm1()
        return torch.where(thick, exact, optical / 2 - optical**2 / 12) / self.density


def chord(origins: Tensor, directions: Tensor, radius: Tensor, density: float) -> Chord:
    """Cross the ball of ``radius`` [B] about the origin with rays [B,R,3]."""
    closest = -(origins * directions).sum(dim=-1)
    square = radius[:, None] ** 2 - ((origins + closest[..., None] * directions) ** 2).sum(dim=-1)
    # The root's slope is infinite at the limb: rays that miss, or nearly, take no part.
    half = torch.where((square > 1e-6) & (closest > 0), square.clamp_min(1e-6).sqrt(), 0.0)
    return Chord(closest - half, 2 * half, density)


class SphereField:
    """raw = (r - |x|) / softness, density = q sigmoid(raw): a ball whose edge is a few thousandths of a unit wide."""

    kind = "density"
    extent = 0.5

    def __init__(self, radius: Tensor, density: float, softness: float) -> None:
        self.radius, self.density, self.softness = radius, density, softness

    def __call__(self, points: Tensor) -> FieldSample:
        length = (points.square().sum(dim=-1) + 1e-12).sqrt()
        raw = (self.radius[:, None] - length) / self.softness
        normals = points / length[..., None]
        colour = COLOURS.to(points)[class_ids(normals)] * 2.0 - 1.0
        return FieldSample(raw, self.density * raw.sigmoid(), colour)


class SphereGenerator(nn.Module):
    """z [B,3] to w [B,3] by a linear map; w moves the radius and the colour of its sample a little."""

    w_avg: Tensor

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.tint = nn.Parameter(torch.zeros(3))
        self.mapping = skip_init(nn.Linear, 3, 3)  # filled below, without global random numbers
        self.conditioning = skip_init(nn.Linear, 25, 3, bias=False)
        seeded = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in (*self.mapping.parameters(), *self.conditioning.parameters()):
                parameter.copy_(torch.randn(parameter.shape, generator=seeded) * 0.3)
        self.register_buffer("w_avg", torch.zeros(3))

    def radii(self, w: Tensor) -> Tensor:
        return self.radius + 0.02 * torch.tanh(w[:, 0])

    def tints(self, w: Tensor) -> Tensor:
        return 0.1 * torch.tanh(self.tint + w)


class SphereDiscriminator(nn.Module):
    """Two convolutions, a mean and a camera term."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            skip_init(nn.Conv2d, 3, 6, 3, 2), nn.LeakyReLU(0.2), skip_init(nn.Conv2d, 6, 6, 3, 2), nn.LeakyReLU(0.2)
        )
        self.logit = skip_init(nn.Linear, 6, 1)
        self.camera = skip_init(nn.Linear, 25, 6)
        seeded = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=seeded) * 0.2)

    def forward(self, image: Tensor, condition: Tensor | None) -> Tensor:
        features = self.layers(image).mean(dim=(2, 3))
        if condition is not None:
            features = features + features * self.camera(condition.to(features))
        out: Tensor = self.logit(features)[:, 0]
        return out


@register_backbone("analytic_sphere")
class AnalyticSphere(Backbone):
    """A ball of ``radius`` and ``density`` per world unit; ``generator.radius`` is the geometry's one parameter."""

    generator: SphereGenerator
    discriminator: SphereDiscriminator

    def __init__(
        self,
        *,
        radius: float = 0.25,
        density: float = 100.0,
        softness: float = 0.005,
        neural_resolution: int = 16,
        image_resolution: int = 16,
        samples: int = 12,
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = SphereGenerator(radius), SphereDiscriminator()
        self.density, self.softness, self.samples = density, softness, samples
        self._resolutions = (image_resolution, neural_resolution)

    @classmethod
    def provides(cls, **options: Any) -> frozenset[str]:
        return PROVIDES

    @property
    def image_resolution(self) -> int:
        return self._resolutions[0]

    @property
    def neural_resolution(self) -> int:
        return self._resolutions[1]

    def draw(self, n: int, streams: Streams) -> Latents:
        return Latents({"z": streams("latents").normal(3).to(self.generator.radius)})

    def prepare(self, latents: Latents, condition: Tensor | None, *, truncation: float = 1.0, update_averages: bool = False) -> Latents:
        w = self.generator.mapping(latents["z"])
        if condition is not None:
            w = w + self.generator.conditioning(condition.to(w))
        if update_averages:
            with torch.no_grad():
                self.generator.w_avg.lerp_(w.mean(dim=0), 0.002)
        return Latents({"w": self.generator.w_avg + truncation * (w - self.generator.w_avg)})

    def field(self, latents: Latents) -> Field:
        return SphereField(self.generator.radii(latents["w"]), self.density, self.softness)

    def render(
        self,
        latents: Latents,
        camera: Camera,
        needs: frozenset[str],
        *,
        streams: Streams,
        resolution: int | None = None,
        sampling: Sampling | None = None,
    ) -> Scene:
        if needs - PROVIDES:
            raise PriorzooError(f"analytic_sphere does not render {', '.join(sorted(needs - PROVIDES))}")
        size, w = resolution or self.neural_resolution, latents["w"]
        with torch.autocast(w.device.type, enabled=False):
            camera_here = camera.to(w)
            origins, directions = rays_from_camera(camera_here, size, size)
            radius = self.generator.radii(w)
            crossing = chord(origins, directions, radius, self.density)
            scene = Scene(camera, rays=Rays(origins, directions, size, size), field=self.field(latents))
            scene["opacity"] = (1.0 - (-self.density * crossing.length).exp()).view(-1, 1, size, size)
            if needs & {"background_transmittance"}:
                scene["background_transmittance"] = 1.0 - scene.opacity
            if needs & {"depth"}:
                scene["depth"] = self._depth(crossing).view(-1, 1, size, size)
            if needs & {"weights", "alpha", "distances", "edges", "samples"}:
                self._march(scene, crossing, streams, sampling or Sampling())
            self._surface(scene, crossing, w, size, needs)
        return scene

    def _depth(self, crossing: Chord) -> Tensor:
        depth = crossing.enter + crossing.mean_depth(crossing.length)
        return torch.where(crossing.length > 0, depth, FAR)

    def _march(self, scene: Scene, crossing: Chord, streams: Streams, sampling: Sampling) -> None:
        """Cut the rays into intervals; the distance of each is the mean depth of what it absorbs: sums are exact."""
        like = crossing.enter
        count = (sampling.coarse or self.samples) + (sampling.fine or 0)
        inner = torch.full((*like.shape, count - 1), 0.5).to(like)
        if sampling.mode == "random":
            inner = streams("jitter").uniform(like.shape[1], count - 1).to(like)
        steps = (torch.arange(count - 1).to(like) + 0.5 + inner) / count
        ends = [torch.full_like(like[..., None], end) for end in (NEAR, FAR)]
        edges = torch.cat([ends[0], NEAR + (FAR - NEAR) * steps, ends[1]], dim=-1)
        left, pieces = crossing.transmittance(edges), crossing.inside(edges).diff(dim=-1)
        weights = left[..., :-1] - left[..., 1:]
        starts = torch.maximum(edges[..., :-1], crossing.enter[..., None])
        middles = (edges[..., :-1] + edges[..., 1:]) / 2
        distances = torch.where(pieces > 0, starts + crossing.mean_depth(pieces), middles)
        alpha = 1.0 - (-self.density * pieces).exp()
        points = scene.rays.origins[:, :, None] + scene.rays.directions[:, :, None] * middles[..., None]
        raw = scene.field(points.flatten(1, 2)).raw.view(middles.shape)
        for name, value in {"edges": edges, "weights": weights, "alpha": alpha, "distances": distances}.items():
            scene[name] = value
        scene["samples"] = Samples(middles, raw)

    def _surface(self, scene: Scene, crossing: Chord, w: Tensor, size: int, needs: frozenset[str]) -> None:
        rays = scene.rays
        hit = (crossing.length > 0)[..., None]
        surface = rays.origins + rays.directions * crossing.enter[..., None]
        normals = torch.where(hit, functional.normalize(surface, dim=-1), -rays.directions)
        ids = torch.where(hit[..., 0], class_ids(normals), 0)
        scene["normals"] = to_image(normals, size)
        scene.set_maker("segmentation", lambda _: one_hot_segmentation(ids.view(-1, size, size)))
        if needs & {"image", "image_raw"}:
            facing = -(normals * rays.directions).sum(dim=-1, keepdim=True)
            colour = (COLOURS.to(w)[ids] + self.generator.tints(w)[:, None]) * (0.8 + 0.2 * facing)
            opacity = scene.opacity.view(*colour.shape[:2], 1)
            scene["image_raw"] = to_image(colour * opacity + 1.0 - opacity, size) * 2.0 - 1.0
            scene["image"] = resized(scene.image_raw, self.image_resolution)

    def critic_input(self, source: Scene | Tensor, resolution: int | None = None) -> dict[str, Tensor]:
        return {"image": source.image if isinstance(source, Scene) else resized(source, self.image_resolution)}

    def criticise(self, critic_input: Mapping[str, Tensor], condition: Tensor | None) -> Tensor:
        logits: Tensor = self.discriminator(critic_input["image"], condition)
        return logits


NEAR, FAR = 2.2, 3.2


def to_image(rows: Tensor, size: int) -> Tensor:
    """[B,R,C] to [B,C,size,size]."""
    return rows.transpose(1, 2).unflatten(2, (size, size))


def resized(image: Tensor, size: int) -> Tensor:
    """Bilinear, antialiased; the same image where nothing changes."""
    if image.shape[-1] == size:
        return image
    return functional.interpolate(image, size=(size, size), mode="bilinear", antialias=True)


def one_hot_segmentation(ids: Tensor) -> Segmentation:
    """Certain probabilities of class ids [B,h,w] in NAMES."""
    return Segmentation(functional.one_hot(ids, len(NAMES)).movedim(-1, 1).float(), NAMES)


@register_segmenter("analytic_colours")
class AnalyticColours(Segmenter):
    """The class whose colour is nearest: the segmenter of images of the ball."""

    names = NAMES

    @classmethod
    def class_names(cls, **options: Any) -> tuple[str, ...]:
        return NAMES

    @torch.no_grad()
    def segment(self, image: Tensor) -> Segmentation:
        palette = COLOURS.to(image) * 2.0 - 1.0
        distance = (image[:, None] - palette[None, :, :, None, None]).square().sum(dim=2)
        return Segmentation((-8.0 * distance).softmax(dim=1), NAMES)


def sphere_scene(
    needs: frozenset[str] | set[str],
    *,
    count: int = 2,
    indices: tuple[int, ...] | None = None,
    size: int = 32,
    seed: int = 0,
    yaw: float = 0.0,
    double: bool = False,
    backbone: AnalyticSphere | None = None,
) -> tuple[Scene, AnalyticSphere]:
    """Render a few balls from ``yaw`` radians with what ``needs`` names; the scene and the backbone behind it.

    ``indices`` are the samples' places in the global batch, 0 .. count - 1 unless given.
    """
    ball = backbone or AnalyticSphere(neural_resolution=size, image_resolution=size)
    ball = ball.double() if double else ball
    streams = Streams(seed, 0, tuple(range(count)) if indices is None else indices)
    angles = torch.full((len(streams.indices),), yaw, dtype=ball.generator.radius.dtype)
    latents = ball.prepare(ball.draw(len(streams.indices), streams), None)
    camera = Camera.looking_at_origin(angles, torch.zeros_like(angles))
    return ball.render(latents, camera, frozenset(needs) & PROVIDES, streams=streams, resolution=size), ball
