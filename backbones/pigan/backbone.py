"""pi-GAN as a backbone: latents to scenes, fields and logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.camera import Camera
from ...core.errors import PriorzooError
from ...core.registry import register_backbone
from ...core.scene import Field, Rays, Samples, Scene
from ...core.streams import Streams
from ...rendering.compositing import Intervals, expected_depth
from ...rendering.rays import rays_from_camera
from ...rendering.samples import density_of
from ..base import Execution, Latents, Progress, Sampling, lay_out_weights
from ..ray_marched import COLOURED, RayMarched, colours_as_image, even_draws, show_apart
from .discriminators import ProgressiveDiscriminator, Verdict
from .field import FORWARD, WORLD_UNITS, SirenField
from .generator import AVERAGE_COUNT, SirenGenerator
from .options import PiGANOptions
from .renderer import Rendering, RenderingOptions, render_rays
from .siren import Folded, SirenNetwork


@register_backbone("pigan")
class PiGAN(RayMarched):
    """pi-GAN (Chan et al. 2021): a SIREN of points and directions that z modulates, volume rendering, a discriminator that grows.

    Options: see `PiGANOptions`. Parts: ``generator.siren`` and ``discriminator`` carry the tensor names of the published files. Prepared
    latents hold raw ``frequencies`` and ``phases`` [B,(L+1)*H]. The network's own units, in which the camera is at radius 1, stay inside:
    everything here is in world units. ``background`` names what stands behind the foreground and its options.

    >>> backbone = PiGAN(z_dim=4, hidden=8, layers=2, neural_resolution=4, image_resolution=8, samples_coarse=4, samples_fine=4,
    ...                  discriminator_channel_max=4)
    >>> from priorzoo.core.streams import fixed_streams
    >>> streams = fixed_streams(0, 2)
    >>> latents, camera = backbone.prepare(backbone.draw(2, streams), None), backbone.draw_cameras(2, streams)
    >>> scene = backbone.render(latents, camera, frozenset({"image", "depth"}), streams=streams)
    >>> scene.image.shape, scene.depth.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 1, 4, 4]))
    """

    Options: type[PiGANOptions] = PiGANOptions  # where recipes find the options' names and types
    generator: SirenGenerator
    discriminator: ProgressiveDiscriminator

    def __init__(self, *, background: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        self.options = self.options_of(options, background)
        own = self.options
        self.rendering: RenderingOptions = own.rendering()
        siren = SirenNetwork(z_dim=own.z_dim, hidden=own.hidden, layers=own.layers, warp=own.box_warp)
        self.generator = SirenGenerator(siren, own.z_dim, self.make_background(background, channels=3))
        self.discriminator = ProgressiveDiscriminator(
            own.discriminator, channel_max=own.discriminator_channel_max, latent=own.discriminator_latent
        )
        self.alpha, self.noise_deviation = 1.0, 0.0  # what `set_progress` sets: as at the end of a training

    @classmethod
    def options_of(cls, options: Mapping[str, Any], background: Mapping[str, Any] | None) -> PiGANOptions:
        """Return the checked options; raises PriorzooError for those that contradict each other."""
        checked = cls.Options.from_mapping(dict(options))
        if background is not None:
            name = background["name"]
            for flag in ("white_back", "last_back"):
                if getattr(checked, flag):
                    raise PriorzooError(f"{checked.owner}: {flag} leaves nothing to see of background {name}; set it to false")
            if checked.density == "softplus" and checked.last_interval == "infinite":
                raise PriorzooError(
                    f"{checked.owner}: density softplus makes the last sample opaque and hides background {name}; set last_interval to far"
                )
        return checked

    def set_options(self, **changes: Any) -> None:
        """Change rules that no tensor depends on (samples, near, far, neural_resolution, camera law, ...), checked as at construction."""
        self.options = replace(self.options, **changes)
        self.rendering = replace(self.options.rendering(), checkpoint=self.rendering.checkpoint)

    def set_execution(self, how: Execution) -> None:
        """Compute as ``how`` says from now on; the field, which is nearly all of it, is not compiled."""
        if how.compile:
            raise PriorzooError(f"training.compile: {self.options.owner} cannot do it; set it to false")
        lay_out_weights(self, how.memory_format)
        self.rendering = replace(self.rendering, checkpoint=how.checkpoint_rendering)

    def set_progress(self, progress: Progress) -> None:
        """Fade the first block of the stage in, and let the noise on the density die away."""
        own = self.options
        self.alpha = min(1.0, (progress.steps - progress.stage_steps) / own.fade_steps) if own.fade_steps else 1.0
        left = 1.0 - progress.steps / own.density_noise_steps if own.density_noise_steps else 0.0
        self.noise_deviation = own.density_noise * max(0.0, left)

    def draw_cameras(self, n: int, streams: Streams) -> Camera:
        """Draw ``n`` cameras from the camera law of the options."""
        if n != len(streams.indices):
            raise PriorzooError(f"draw_cameras: {n} cameras were asked for, the streams are those of {len(streams.indices)} samples")
        return self.options.camera_law().draw(streams)

    def prepare(self, latents: Latents, condition: Tensor | None, *, truncation: float = 1.0, update_averages: bool = False) -> Latents:
        """Map z to raw ``frequencies`` and ``phases`` [B,(L+1)*H]; the camera plays no part."""
        frequencies, phases = self.generator.map(latents["z"], truncation=truncation, update_averages=update_averages)
        made = Latents({"frequencies": frequencies, "phases": phases})
        if self.background is not None:
            made.tensors |= self.background.prepare(latents.tensors, truncation=truncation, update_averages=update_averages)
        return made

    def generate_averages(self, count: int = AVERAGE_COUNT, seed: int = 0) -> None:
        """Set the centre of truncation to the mean over ``count`` z drawn from ``seed``; training only keeps a running one."""
        self.generator.generate_averages(count, seed)

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
        """Render prepared latents; colours are left out where ``needs`` does not name them.

        ``sampling`` "deterministic" moves no coarse sample, places fine ones at equal steps of the cumulative distribution, and adds no
        noise. The consumer ``density_noise`` draws where training has noise on the density.
        """
        self.require_rendered(needs)
        size = self.options.neural_resolution if resolution is None else resolution
        folded = self._folded(latents)
        field = self._field(folded)
        if needs <= {"field"}:
            return Scene(camera, field=field)
        like = latents["frequencies"]
        with torch.autocast(like.device.type, enabled=False):
            view = camera.to(like.device, like.dtype)
            origins, directions = rays_from_camera(view, size, size, pixels=self.options.rays)
            behind, distance = self.behind(latents, origins, directions, needs)
            seen_along = self._seen_along(directions) if needs & COLOURED else None
            result = self._rendered(folded, origins / WORLD_UNITS, directions, seen_along, behind, streams, sampling or Sampling())
            scene = self._scene(camera, result, size, needs)
            show_apart(
                scene, needs, march=result.march, distances=result.march.distances * WORLD_UNITS, foreground=result.foreground,
                behind=behind, behind_at=self.rendering.far * WORLD_UNITS if distance is None else distance, size=size,
            )  # fmt: skip
        scene["rays"] = Rays(origins, directions, size, size)
        scene["field"] = field
        return scene

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
        """March rays [B,R,3] in the network's own units."""
        jitter, u, noise = self._draws(len(origins), origins.shape[1], streams, sampling, origins)
        return render_rays(
            folded, origins, directions, self.rendering, jitter=jitter, u=u, noise=noise, seen_along=seen_along, background=behind
        )  # fmt: skip

    def _seen_along(self, directions: Tensor) -> Tensor:
        return directions.new_tensor(FORWARD).expand_as(directions) if self.options.lock_view_dependence else directions

    def _draws(
        self, batch: int, rays: int, streams: Streams, sampling: Sampling, like: Tensor
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, Tensor] | None]:
        """Jitter [B,R,S] of the coarse samples, u [B,R,K] of the fine ones (None where there are none), noise of both marches."""
        coarse, fine = self.sample_counts(sampling)
        if sampling.mode == "deterministic":
            return *even_draws(batch, rays, coarse, fine, like), None
        jitter = streams("jitter").uniform(rays, coarse).to(like)
        u = streams("importance").uniform(rays, fine).to(like) if fine else None
        if self.noise_deviation == 0:
            return jitter, u, None
        stream = streams("density_noise")
        drawn = (stream.normal(rays, coarse), stream.normal(rays, coarse + fine))
        return jitter, u, (drawn[0].to(like) * self.noise_deviation, drawn[1].to(like) * self.noise_deviation)

    def _scene(self, camera: Camera, result: Rendering, size: int, needs: frozenset[str]) -> Scene:
        march = result.march
        distances = march.distances * WORLD_UNITS
        scene = Scene(
            camera,
            weights=march.weights,
            alpha=march.alpha,
            distances=distances,
            edges=march.edges * WORLD_UNITS,
            opacity=march.opacity.view(-1, 1, size, size),
            samples=Samples(result.drawn * WORLD_UNITS, result.raw, result.coarse),
        )
        if "background_transmittance" in needs:
            scene["background_transmittance"] = 1.0 - scene["opacity"]
        if "depth" in needs:
            if self.options.depth == "as_published":
                depth = self._published_depth(march)
            else:
                depth = expected_depth(march.weights, distances, self.rendering.far * WORLD_UNITS)
            scene["depth"] = depth.view(-1, 1, size, size)
        if result.colours is not None:
            raw = colours_as_image(result.colours, size)
            scene["image_raw"] = raw
            if "image" in needs:
                scene["image"] = resized(raw, self.options.image_resolution)
        return scene

    @staticmethod
    def _published_depth(march: Intervals) -> Tensor:
        """Distance [B,R] in world units, not divided by the opacity."""
        return (march.weights * march.distances).sum(dim=-1) * WORLD_UNITS

    def field(self, latents: Latents) -> Field:
        """The shape of prepared latents; its density is per world unit."""
        return self._field(self._folded(latents))

    def _folded(self, latents: Latents) -> Folded:
        return self.generator.folded(latents["frequencies"], latents["phases"])

    def _field(self, folded: Folded) -> SirenField:
        return SirenField(folded, "density", partial(world_density, self.options.density), self.options.extent * WORLD_UNITS)

    def critic_needs(self) -> frozenset[str]:
        """``image_raw``: the discriminator takes images of any size."""
        return frozenset({"image_raw"})

    def critic_input(self, source: Scene | Tensor, resolution: int | None = None) -> dict[str, Tensor]:
        """What the discriminator sees: the rendering at its own size, or real images reduced to ``resolution`` by the options' rule."""
        if isinstance(source, Scene):
            return {"image": source["image_raw"]}
        size = self.options.neural_resolution if resolution is None else resolution
        return {"image": resized(source, size, nearest=self.options.reduction == "nearest")}

    def _verdict(self, critic_input: Mapping[str, Tensor]) -> Verdict:
        verdict: Verdict = self.discriminator(critic_input["image"], self.alpha)
        return verdict

    def criticise(self, critic_input: Mapping[str, Tensor], condition: Tensor | None) -> Tensor:
        """Logits [B]; the camera plays no part."""
        return _single(self._verdict(critic_input).logits)

    def inspect(self, critic_input: Mapping[str, Tensor], condition: Tensor | None) -> dict[str, Tensor]:
        """``logits`` [B]; where the discriminator encodes also ``latent`` [B,L] and ``pose`` [B,2]: pitch and yaw in pi-GAN's angles."""
        verdict = self._verdict(critic_input)
        told = {"logits": verdict.logits, "latent": verdict.latent, "pose": verdict.pose}
        return {name: _single(value) for name, value in told.items() if value is not None}


def world_density(activation: str, raw: Tensor) -> Tensor:
    """Density per world unit of raw output, whose own is per unit of the network."""
    return density_of(raw, activation) / WORLD_UNITS


def resized(image: Tensor, size: int, *, nearest: bool = False) -> Tensor:
    """Images [B,3,h,w] at ``size`` pixels a side; smaller ones by every n-th pixel (``nearest``) or antialiased."""
    if image.shape[-2:] == (size, size):
        return image
    if nearest and image.shape[-1] > size:
        return F.interpolate(image, (size, size), mode="nearest")
    return F.interpolate(image, (size, size), mode="bilinear", align_corners=False, antialias=image.shape[-1] > size)


def _single(values: Tensor) -> Tensor:
    return values if values.element_size() >= 4 else values.float()
