"""GOF as a backbone: pi-GAN's field as an occupancy, rendered about its surfaces."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...core.camera import Camera
from ...core.options import check_number
from ...core.registry import register_backbone
from ...core.scene import Scene
from ...core.streams import Streams
from ...rendering.compositing import Intervals
from ...rendering.roots import METHODS
from ..base import Progress, Sampling
from ..ray_marched import RENDERS, even_draws
from .backbone import PiGAN
from .field import WORLD_UNITS, SirenField
from .options import CHOICES, COUNTS, PiGANOptions
from .renderer import Rendering
from .siren import Folded
from .surface_renderer import COMPOSITINGS, SurfaceOptions, render_surfaces

NO_DENSITY = ("density", "last_interval")


@dataclass(frozen=True)
class GOFOptions(PiGANOptions):
    """pi-GAN's options but those of density; the defaults are the published CelebA model's, but for ``rays``. Lengths (also
    ``interval_max`` and ``interval_min``) are in the network's own units, in which the camera is at radius 1.

    ``samples_coarse`` equal steps look for the surface; ``samples_surface`` are rendered about it and ``samples_fine`` where the coarse
    ones saw occupancy. ``threshold``: the occupancy that makes a surface, found by ``root_finding`` (secant or bisection) with
    ``root_steps`` evaluations. The region about it reaches max(``interval_min``, ``interval_max`` exp(-``interval_decay`` n)) to either
    side at optimiser step n, and ``interval_min`` after training. ``rendering``: ``volume``, or ``surface_only``: the colour of the
    surface itself, through which nothing but colour learns. ``depth: as_published`` is sum(w t) / (sum(w) + 1e-5).
    """

    owner: ClassVar[str] = "backbone gof"
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **{name: allowed for name, allowed in CHOICES.items() if name not in NO_DENSITY},
        "root_finding": METHODS, "compositing": COMPOSITINGS,
    }  # fmt: skip
    counts: ClassVar[Mapping[str, int]] = {**COUNTS, "samples_surface": 2, "root_steps": 0}

    density: str = field(default="relu", init=False, repr=False)
    density_noise: float = field(default=0.0, init=False, repr=False)
    density_noise_steps: int = field(default=0, init=False, repr=False)
    last_interval: str = field(default="infinite", init=False, repr=False)
    samples_coarse: int = 9
    samples_surface: int = 9
    samples_fine: int = 6
    threshold: float = 0.5
    root_finding: str = "secant"
    root_steps: int = 4
    interval_max: float = 0.12
    interval_min: float = 0.03
    interval_decay: float = 1e-5
    compositing: str = "volume"
    discriminator: str = "progressive_encoder"
    fade_steps: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.owner, "interval_min", self.interval_min, above=0.0, most=self.interval_max)
        check_number(self.owner, "interval_max", self.interval_max, above=0.0)
        check_number(self.owner, "interval_decay", self.interval_decay, least=0.0)

    def rendering(self) -> SurfaceOptions:
        """The renderer's part of the options."""
        return SurfaceOptions(
            near=self.near, far=self.far, white_back=self.white_back, last_back=self.last_back, threshold=self.threshold,
            method=self.root_finding, steps=self.root_steps, mode=self.compositing,
        )  # fmt: skip

    def interval(self, steps: int) -> float:
        """How far the rendered region reaches to either side of the surface after ``steps`` of the optimiser (section 3.3).

        >>> [round(GOFOptions().interval(n), 4) for n in (0, 100_000, 10_000_000)]
        [0.12, 0.0441, 0.03]
        """
        return max(self.interval_min, self.interval_max * math.exp(-self.interval_decay * steps))


@register_backbone("gof")
class GOF(PiGAN):
    """GOF (Xu et al. 2021): pi-GAN's network as an occupancy, which is rendered within a region about its surface that shrinks.

    alpha = sigmoid(raw) at every sample, whatever the distances (section 3.1). Options: see `GOFOptions`. Parts, tensor names, cameras and
    discriminators are pi-GAN's. ``surface_depth`` is the first surface that the coarse samples bracket, far where there is none. The
    published code keeps the region between 0.88 and 1.12 whatever the bounds are; here it is kept between ``near`` and ``far``.

    >>> backbone = GOF(z_dim=4, hidden=8, layers=2, neural_resolution=4, image_resolution=4, discriminator_channel_max=4)
    >>> from priorzoo.core.streams import fixed_streams
    >>> streams = fixed_streams(0, 2)
    >>> latents, camera = backbone.prepare(backbone.draw(2, streams), None), backbone.draw_cameras(2, streams)
    >>> scene = backbone.render(latents, camera, frozenset({"image", "surface_depth"}), streams=streams)
    >>> scene.weights.shape, scene.surface_depth.shape
    (torch.Size([2, 16, 15]), torch.Size([2, 1, 4, 4]))
    """

    Options: type[PiGANOptions] = GOFOptions
    renders = RENDERS | {"surface_depth", "surface_mask"}
    options: GOFOptions
    rendering: SurfaceOptions

    def __init__(self, *, background: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(background=background, **options)
        self.half_width = self.options.interval_min  # what `set_progress` sets: as at the end of a training

    def set_progress(self, progress: Progress) -> None:
        """Fade the first block of the stage in, and let the region about the surface shrink."""
        super().set_progress(progress)
        self.half_width = self.options.interval(progress.steps)

    def set_options(self, **changes: Any) -> None:
        """Change rules that no tensor depends on, checked as at construction; the region becomes that after training."""
        super().set_options(**changes)
        self.half_width = self.options.interval_min

    def _rendered(
        self,
        folded: Folded,
        origins: Tensor,
        directions: Tensor,
        seen_along: Tensor | None,
        behind: Tensor | None,
        streams: Streams,
        sampling: Sampling,
    ) -> Rendering:
        own = self.options
        coarse, fine = self.sample_counts(sampling)
        batch, rays = origins.shape[:2]
        if sampling.mode == "deterministic":
            jitter, u = even_draws(batch, rays, own.samples_surface, fine, origins)
        else:
            jitter = streams("jitter").uniform(rays, own.samples_surface).to(origins)
            u = streams("importance").uniform(rays, fine).to(origins) if fine else None
        return render_surfaces(
            folded, origins, directions, self.rendering, coarse=coarse, half_width=self.half_width, jitter=jitter, u=u,
            seen_along=seen_along, background=behind,
        )  # fmt: skip

    def _scene(self, camera: Camera, result: Rendering, size: int, needs: frozenset[str]) -> Scene:
        scene = super()._scene(camera, result, size, needs)
        if result.surface is not None:
            distances = result.surface.distances * WORLD_UNITS
            scene["surface_depth"] = distances.view(-1, 1, size, size)
            scene["surface_mask"] = result.surface.found.to(distances).view(-1, 1, size, size)
        return scene

    @staticmethod
    def _published_depth(march: Intervals) -> Tensor:
        total = 1.0 - march.background_transmittance  # without what ``last_back`` adds
        return (march.weights * march.distances).sum(dim=-1) / (total + 1e-5) * WORLD_UNITS

    def _field(self, folded: Folded) -> SirenField:
        return SirenField(folded, "occupancy", torch.sigmoid, self.options.extent * WORLD_UNITS)
