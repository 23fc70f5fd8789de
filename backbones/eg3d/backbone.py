"""EG3D as a backbone: latents to scenes, fields and logits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...core.camera import Camera
from ...core.errors import PriorzooError
from ...core.registry import register_backbone
from ...core.scene import Field, FieldSample, Rays, Samples, Scene
from ...core.streams import Streams
from ...rendering.compositing import density_from_raw, expected_depth, published_depth
from ...rendering.rays import rays_from_camera
from ..base import Execution, Latents, Sampling, lay_out_weights
from ..ray_marched import COLOURED, IMAGES, RayMarched, even_draws, show_apart
from ..stylegan2.layers import Noise
from .compiling import check_compiler
from .discriminator import DualDiscriminator, resize
from .generator import LABEL, TriPlaneGenerator, camera_for
from .options import EG3DOptions
from .renderer import Rendering, RenderingOptions, query_planes, render_rays
from .superresolution import SuperResolution
from .synthesis import SynthesisBlock


class TriPlaneField:
    """Point queries of planes: raw density, softplus(raw - 1), the decoder's first three colours in [-1,1]."""

    kind = "density"

    def __init__(self, planes: Tensor, generator: TriPlaneGenerator, options: RenderingOptions) -> None:
        self.planes, self._generator, self._options = planes, generator, options
        self.extent = options.box_warp / 2

    def __call__(self, points: Tensor) -> FieldSample:
        """Query world points [B,N,3]; twice differentiable where the points carry gradient."""
        with torch.autocast(self.planes.device.type, enabled=False):
            raw, colours = query_planes(
                self.planes,
                self._generator.decoder,
                points.to(self.planes.dtype),
                self._options,
                twice_differentiable=points.requires_grad,
            )
        assert colours is not None
        return FieldSample(raw, density_from_raw(raw), colours[:, :3].transpose(1, 2) * 2.0 - 1.0)


@register_backbone("eg3d")
class EG3D(RayMarched):
    """EG3D (Chan et al. 2022): tri-planes by StyleGAN2, volume rendering, super-resolution, dual discriminator.

    Options: see `EG3DOptions`. Parts: ``generator`` and ``discriminator`` carry the tensor names of the published
    files. Prepared latents hold ``ws`` [B,num_ws,w_dim], and ``planes`` once `with_planes` was asked for. ``background`` names what stands
    behind the foreground and its options ; None: black, or white with ``white_back``.

    >>> backbone = EG3D(z_dim=4, w_dim=8, plane_resolution=8, plane_channels=2, channel_base=64, channel_max=8, decoder_hidden=4,
    ...                 superresolution="none", feature_channels=3, neural_resolution=4, image_resolution=8,
    ...                 samples_coarse=4, samples_fine=4, discriminator_channel_base=64, discriminator_channel_max=8)
    >>> from priorzoo.core.streams import fixed_streams
    >>> streams = fixed_streams(0, 2)
    >>> latents = backbone.prepare(backbone.draw(2, streams), None)
    >>> camera = Camera.looking_at_origin(torch.zeros(2), torch.zeros(2))
    >>> scene = backbone.render(latents, camera, frozenset({"image", "depth"}), streams=streams)
    >>> scene.image.shape, scene.depth.shape
    (torch.Size([2, 3, 8, 8]), torch.Size([2, 1, 4, 4]))
    """

    Options: type[EG3DOptions] = EG3DOptions  # where recipes find the options' names and types
    discriminator: DualDiscriminator
    generator: TriPlaneGenerator

    def __init__(self, *, background: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__()
        self.options = self.options_of(options, background)
        self.execution = Execution()
        self.rendering = self._rendering()
        self.generator = TriPlaneGenerator(self.options, self.make_background(background, self.options.feature_channels))
        self.discriminator = DualDiscriminator(
            resolution=self.options.image_resolution,
            c_dim=LABEL,
            channel_base=self.options.discriminator_channel_base,
            channel_max=self.options.discriminator_channel_max,
            dual=self.options.dual,
            clamp=self.options.discriminator_clamp,
            mapping_layers=self.options.discriminator_mapping_layers,
            group=self.options.discriminator_group,
        )

    @classmethod
    def options_of(cls, options: Mapping[str, Any], background: Mapping[str, Any] | None) -> EG3DOptions:
        """Return the checked options; raises PriorzooError for those that contradict each other."""
        checked = cls.Options.from_mapping(dict(options))
        if background is not None and checked.white_back:
            raise PriorzooError(
                f"backbone {cls.registry_name}: white_back is a background of its own; it cannot stand with {background['name']}"
            )
        return checked

    def set_options(self, **changes: Any) -> None:
        """Change rules that no tensor depends on (samples, near, far, neural_resolution, noise, ...), checked as at
        construction.
        """
        self.options = replace(self.options, **changes)
        self.rendering = self._rendering()

    def set_execution(self, how: Execution) -> None:
        """Compute as ``how`` says from now on; ``compile`` takes the planes' network and super-resolution."""
        if how.compile:
            check_compiler(next(self.parameters()).device)
        self.generator.compiles = how.compile
        lay_out_weights(self, how.memory_format)
        for module in self.modules():
            if isinstance(module, (SynthesisBlock, SuperResolution, DualDiscriminator)):
                module.memory_format = how.memory_format
        self.execution = how
        self.rendering = self._rendering()

    def _rendering(self) -> RenderingOptions:
        return replace(self.options.rendering(), checkpoint=self.execution.checkpoint_rendering)

    def prepare(self, latents: Latents, condition: Tensor | None, *, truncation: float = 1.0, update_averages: bool = False) -> Latents:
        """Map z and the conditioning label [B,25] (None: zeros) to ``ws`` [B,num_ws,w_dim]."""
        from ..stylegan2.mapping import truncate

        mapping = self.generator.mapping
        z = latents["z"]
        label = None
        if self.options.conditioning != "none":
            scale = self.options.conditioning_scale if self.options.conditioning == "camera" else 0.0
            label = z.new_zeros(len(z), LABEL) if condition is None or scale == 0.0 else condition * scale
        with torch.autocast(z.device.type, enabled=False):  # published in float32 throughout, and it costs nothing
            w = mapping(z, label, update_average=update_averages)
        ws = truncate(w, mapping.w_avg.to(w), truncation, self.generator.num_ws, self.options.truncation_cutoff)
        if self.background is None:
            return Latents({"ws": ws})
        return Latents({"ws": ws, **self.background.prepare(latents.tensors, truncation=truncation, update_averages=update_averages)})

    def with_planes(self, latents: Latents, streams: Streams | None = None) -> Latents:
        """Prepared latents that also hold their ``planes``, so that several renders and queries share them."""
        if "planes" in latents:
            return latents
        planes = self.generator.planes(latents["ws"], self._noise(self.options.noise, streams))
        return Latents({**latents.tensors, "planes": planes})

    def materialise(self, latents: Latents, streams: Streams) -> Latents:
        """Prepared latents with their planes: every later render and query is of this one shape."""
        return self.with_planes(latents, streams)

    def _noise(self, mode: str, streams: Streams | None, consumer: str = "noise") -> Noise:
        if mode == "none":
            return None
        if mode == "const" or streams is None:  # a field without a render has no streams: it takes the stored noise
            return "const"
        stream = streams(consumer)
        return lambda resolution: stream.normal(1, resolution, resolution)

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
        """Render prepared latents; colours and super-resolution are left out where ``needs`` does not name them.

        ``sampling`` "deterministic" places coarse samples in the middle of their strata and fine ones at equal steps of
        the cumulative distribution.
        """
        self.require_rendered(needs)
        size = self.options.neural_resolution if resolution is None else resolution
        latents = self.with_planes(latents, streams)
        planes = latents["planes"]
        field = TriPlaneField(planes, self.generator, self.rendering)
        if needs <= {"field"}:
            return Scene(camera, field=field)
        with torch.autocast(planes.device.type, enabled=False):
            origins, directions = rays_from_camera(camera_for(camera, planes), size, size)
            behind, distance = self.behind(latents, origins, directions, needs)
            jitter, u = self._draws(len(planes), size * size, streams, sampling or Sampling(), planes, as_drawn="samples" in needs)
            result = render_rays(
                planes,
                self.generator.decoder,
                origins,
                directions,
                self.rendering,
                jitter=jitter,
                u=u,
                colours=bool(needs & COLOURED),
                background=behind,
            )
            far = result.far.squeeze(-1) if isinstance(result.far, Tensor) else result.far
            scene = self._scene(camera, result, far, size, needs)
            show_apart(
                scene, needs, march=result.march, distances=result.march.distances, foreground=result.foreground, behind=behind,
                behind_at=far if distance is None else distance, size=size,
            )  # fmt: skip
        scene["rays"] = Rays(origins, directions, size, size)
        scene["field"] = field
        if result.features is not None:
            self._add_images(scene, result.features.view(*result.features.shape[:2], size, size), latents["ws"], needs, streams)
        return scene

    def _draws(
        self, batch: int, rays: int, streams: Streams, sampling: Sampling, like: Tensor, *, as_drawn: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Jitter [B,R,S] of the coarse samples and u [B,R,K] of the fine ones (None where there are none)."""
        coarse, fine = self.sample_counts(sampling)
        if sampling.mode == "random":
            jitter = streams("jitter").uniform(rays, coarse).to(like)
            if not fine:
                return jitter, None
            u = streams("importance").uniform(rays, fine)
            if u.device.type == "cpu" and not as_drawn:
                u.numpy().sort(axis=-1)  # rendering does not depend on the draws' order, and sorted ones are looked up twice as fast
            return jitter, u.to(like)
        return even_draws(batch, rays, coarse, fine, like)

    def _scene(self, camera: Camera, result: Rendering, far: float | Tensor, size: int, needs: frozenset[str]) -> Scene:
        march = result.march
        scene = Scene(
            camera,
            weights=march.weights,
            alpha=march.alpha,
            distances=march.distances,
            edges=march.edges,
            opacity=march.opacity.view(-1, 1, size, size),
            samples=Samples(result.drawn, result.raw, result.coarse),
        )
        if "background_transmittance" in needs:
            scene["background_transmittance"] = march.background_transmittance.view(-1, 1, size, size)
        if "depth" in needs:
            if self.options.depth == "as_published":
                depth = published_depth(march.weights, march.distances, result.drawn)
            else:
                depth = expected_depth(march.weights, march.distances, far)
            scene["depth"] = depth.view(-1, 1, size, size)
        return scene

    def _add_images(self, scene: Scene, features: Tensor, ws: Tensor, needs: frozenset[str], streams: Streams) -> None:
        raw = features[:, :3]
        if self.options.has_superresolution:
            published = self.options.raw_image == "as_published"
            if "image" in needs or published:
                noise = self._noise(self.options.superresolution_noise, streams, "superresolution_noise")
                image, written = self.generator.superresolve(features, ws, noise)
                scene["image"] = image.float() if image.element_size() < 4 else image
                raw = written if published else raw
        elif "image" in needs:
            scene["image"] = resize(raw, self.options.image_resolution)
        scene["image_raw"] = raw

    def field(self, latents: Latents) -> Field:
        """The shape of prepared latents; a planes' network with random noise takes the stored noise here."""
        return TriPlaneField(self.with_planes(latents)["planes"], self.generator, self.rendering)

    def critic_needs(self) -> frozenset[str]:
        """``image``, and ``image_raw`` where the discriminator is dual."""
        return IMAGES if self.options.dual else frozenset({"image"})

    def critic_input(self, source: Scene | Tensor, resolution: int | None = None) -> dict[str, Tensor]:
        """What the discriminator sees: ``image`` [B,3,H,H], and ``image_raw`` [B,3,h,h] where it is dual.

        Of real images the raw version is an antialiased reduction to the neural ``resolution``. Without
        super-resolution a generated image is no sharper than its rendering, so real ones pass through the same
        resolution.
        """
        if isinstance(source, Scene):
            return {name: source[name] for name in sorted(self.critic_needs())}
        size = self.options.neural_resolution if resolution is None else resolution
        full = resize(source, self.options.image_resolution)
        raw = resize(full, size)
        if not self.options.has_superresolution:
            full = resize(raw, self.options.image_resolution)
        return {"image": full, "image_raw": raw} if self.options.dual else {"image": full}

    def criticise(self, critic_input: Mapping[str, Tensor], condition: Tensor | None) -> Tensor:
        """Logits [B] for the camera labels [B,25] of the images (None: zeros)."""
        image = critic_input["image"]
        label = image.new_zeros(len(image), LABEL) if condition is None else condition
        logits = self.discriminator(image, critic_input.get("image_raw"), label)[:, 0]
        return logits if logits.element_size() >= 4 else logits.float()
