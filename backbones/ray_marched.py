"""What backbones share that march rays through a volume: buffers, sample counts, latents, and a background behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..core.errors import PriorzooError
from ..core.registry import BACKGROUNDS
from ..core.scene import Scene
from ..core.streams import Streams
from ..rendering.compositing import Intervals
from .backgrounds.base import Background
from .base import Backbone, Latents, Sampling

RENDERS = frozenset({
    "image", "image_raw", "depth", "opacity", "background_transmittance", "weights", "alpha", "distances", "edges", "samples", "rays",
    "field",
})  # fmt: skip
IMAGES = frozenset({"image", "image_raw"})
BEHIND = frozenset({"composite_depth", "foreground_raw", "background_raw"})
COLOURED = IMAGES | BEHIND - {"composite_depth"}
MODES = ("random", "deterministic")


class RayMarched(Backbone):
    """Base of the tri-plane and the SIREN families; ``self.options`` holds their checked options, ``renders`` what needs no background."""

    takes_background = True
    renders: ClassVar[frozenset[str]] = RENDERS
    options: Any

    @classmethod
    def options_of(cls, options: Mapping[str, Any], background: Mapping[str, Any] | None) -> Any:
        """Return the checked options; raises PriorzooError for those that contradict each other."""
        raise NotImplementedError(f"{cls.__name__} must check its options")

    @classmethod
    def provides(cls, *, background: Mapping[str, Any] | None = None, **options: Any) -> frozenset[str]:
        """What needs no background, and with one also both parts and the composite depth; raises PriorzooError for bad options."""
        cls.options_of(options, background)
        return cls.renders if background is None else cls.renders | BEHIND

    @staticmethod
    def make_background(background: Mapping[str, Any] | None, channels: int) -> Background | None:
        """Build the background of that name and options for so many channels."""
        if background is None:
            return None
        options = {k: v for k, v in background.items() if k != "name"}
        made = BACKGROUNDS.create(background["name"], channels=channels, **options)
        assert isinstance(made, Background)
        return made

    @property
    def background(self) -> Background | None:
        """What stands behind the foreground, if anything."""
        return getattr(self.generator, "background", None)

    @property
    def image_resolution(self) -> int:
        """Side of ``image`` in pixels."""
        return int(self.options.image_resolution)

    @property
    def neural_resolution(self) -> int:
        """Side of the volume rendering in pixels."""
        return int(self.options.neural_resolution)

    def draw(self, n: int, streams: Streams) -> Latents:
        """Draw ``n`` standard normal z, and the background's own."""
        stream = streams("latents")
        if n != len(stream):
            raise PriorzooError(f"draw: {n} latents were asked for, the streams are those of {len(stream)} samples")
        behind = {} if self.background is None else self.background.draw(n, streams)
        return Latents({"z": stream.normal(self.options.z_dim), **behind})

    def require_rendered(self, needs: frozenset[str]) -> None:
        """Raise PriorzooError for buffers that this backbone does not render, with those that it does."""
        provides = self.renders if self.background is None else self.renders | BEHIND
        missing = needs - provides
        if missing:
            name = self.registry_name
            raise PriorzooError(f"backbone {name} does not render {', '.join(sorted(missing))}; it renders {', '.join(sorted(provides))}")

    def behind(self, latents: Latents, origins: Tensor, directions: Tensor, needs: frozenset[str]) -> tuple[Tensor | None, Tensor | None]:
        """Features [B,C,R] and distances [B,R] of the background on rays [B,R,3] of the world; None where nothing asks for them."""
        if self.background is None or not needs & (BEHIND | IMAGES):
            return None, None
        features, distance = self.background(latents.tensors, origins, directions)
        return features, distance

    def sample_counts(self, sampling: Sampling) -> tuple[int, int]:
        """Coarse and fine samples a ray, the options' own where ``sampling`` says nothing; refuses an unknown mode."""
        if sampling.mode not in MODES:
            raise PriorzooError(f"sampling: mode {sampling.mode!r} is not one of {', '.join(MODES)}")
        coarse = self.options.samples_coarse if sampling.coarse is None else sampling.coarse
        fine = self.options.samples_fine if sampling.fine is None else sampling.fine
        return coarse, fine


def even_draws(batch: int, rays: int, coarse: int, fine: int, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """What stands in for random numbers: jitter [B,R,coarse] of one half, u [B,R,fine] at equal steps in [0,1] (None without any)."""
    jitter = like.new_full((batch, rays, coarse), 0.5)
    steps = torch.linspace(0.0, 1.0, fine, dtype=like.dtype, device=like.device)
    return jitter, steps.expand(batch, rays, fine) if fine else None


def colours_as_image(colours: Tensor, size: int) -> Tensor:
    """The first three channels of [B,C,R] in [0,1] as an image [B,3,size,size] in [-1,1]."""
    return (colours[:, :3] * 2.0 - 1.0).reshape(-1, 3, size, size)


def show_apart(
    scene: Scene, needs: frozenset[str], *, march: Intervals, distances: Tensor, foreground: Tensor | None, behind: Tensor | None,
    behind_at: Tensor | float, size: int,
) -> None:  # fmt: skip
    """Put foreground and background apart into the scene, and the expected distance of both together, where ``needs`` names them.

    Args: ``foreground``, ``behind`` features [B,C,R] in [0,1]; ``distances`` [B,R,S] of the march and ``behind_at`` (a number or [B,R]) in
    world units.
    """
    if "foreground_raw" in needs and foreground is not None:
        scene["foreground_raw"] = colours_as_image(foreground, size)
    if "background_raw" in needs and behind is not None:
        scene["background_raw"] = colours_as_image(behind, size)
    if "composite_depth" in needs:
        far = torch.as_tensor(behind_at).to(march.opacity).expand_as(march.opacity)
        depth = (march.weights * distances).sum(dim=-1) + march.background_transmittance * far
        scene["composite_depth"] = (depth / (march.opacity + march.background_transmittance)).view(-1, 1, size, size)
