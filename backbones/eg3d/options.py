"""The options of the EG3D backbone, checked before anything is built."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ...core.errors import PriorzooError, did_you_mean
from .renderer import RenderingOptions
from .superresolution import layout_of

CHOICES = {
    "conditioning": ("camera", "zero", "none"),
    "noise": ("random", "const", "none"),
    "superresolution_noise": ("random", "const", "none"),
    "discriminator": ("auto", "dual", "single"),
    "depth": ("expected", "as_published"),
    "raw_image": ("rendered", "as_published"),
    "decoder": ("joint", "split"),
    "torgb_init": ("normal", "uniform"),
    "automatic_bounds": ("official", "corrected"),
}


@dataclass(frozen=True)
class EG3DOptions:
    """Every size and rule of the backbone; the defaults are the published FFHQ-512 model's. ``automatic_bounds``: of ``near: auto``.

    ``conditioning``: "camera" feeds the camera label to the mapping, "zero" feeds zeros through the same network (the
    published way to switch it off), "none" builds a mapping of z alone. ``superresolution``: none, 2x, 4x, 8x or 8xdc.
    ``depth: as_published`` clamps to the batch's range and has no usable gradient; ``raw_image: as_published`` hands
    out the raw image that the 2x and 4x modules have written into. ``decoder: split`` and ``torgb_init: uniform`` are BallGAN's: last
    layers of their own for density (starting from zero) and colours, and torgb layers that start as torch's convolutions do.
    """

    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    conditioning: str = "camera"
    conditioning_scale: float = 1.0
    truncation_cutoff: int | None = None
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    noise: str = "random"
    torgb_init: str = "normal"
    decoder: str = "joint"
    decoder_hidden: int = 64
    decoder_lr_multiplier: float = 1.0
    feature_channels: int = 32
    density_gain: float = 1.0
    box_warp: float = 1.0
    near: float | str = 2.25
    far: float | str = 3.3
    samples_coarse: int = 48
    samples_fine: int = 48
    white_back: bool = False
    disparity: bool = False
    plane_axes: str = "official"
    importance: str = "official"
    automatic_bounds: str = "official"
    depth: str = "expected"
    raw_image: str = "rendered"
    neural_resolution: int = 64
    image_resolution: int = 512
    superresolution: str = "8xdc"
    superresolution_input: int | None = None
    superresolution_channels: tuple[int, int] | None = None
    superresolution_noise: str = "none"
    superresolution_clamp: float | None = 256.0
    superresolution_antialias: bool = True
    discriminator: str = "auto"
    discriminator_channel_base: int = 32768
    discriminator_channel_max: int = 512
    discriminator_mapping_layers: int = 8
    discriminator_group: int = 4
    discriminator_clamp: float | None = 256.0

    @classmethod
    def from_mapping(cls, options: dict[str, Any]) -> EG3DOptions:
        """Build from keyword options; an unknown one is a PriorzooError with the nearest name."""
        names = [field.name for field in fields(cls)]
        for name in options:
            if name not in names:
                raise PriorzooError(f"backbone eg3d: unknown option {name!r}{did_you_mean(name, names)}; allowed: {', '.join(names)}")
        return cls(**options)

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if value not in allowed:
                raise PriorzooError(
                    f"backbone eg3d: {name} {value!r} is not one of {', '.join(allowed)}" + did_you_mean(str(value), allowed)
                )
        for name in ("plane_resolution", "image_resolution"):
            value = getattr(self, name)
            if value < 4 or value & (value - 1):
                raise PriorzooError(f"backbone eg3d: {name} must be a power of two of at least 4, got {value}")
        counts = {
            "samples_coarse": 2 if self.samples_fine == 0 else 4,
            "samples_fine": 0,
            "feature_channels": 3,
            "mapping_layers": 1,
        }
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise PriorzooError(f"backbone eg3d: {name} must be at least {least}, got {getattr(self, name)}")
        self.rendering()
        if self.has_superresolution:
            layout = layout_of(self.superresolution)
            made = (self.superresolution_input or layout.input_size) * layout.resolution // layout.input_size
            if made != self.image_resolution:
                raise PriorzooError(
                    f"backbone eg3d: superresolution {self.superresolution} makes images of {made} pixels a side, "
                    f"image_resolution says {self.image_resolution}"
                )

    @property
    def has_superresolution(self) -> bool:
        """Whether a super-resolution module stands behind the renderer."""
        return self.superresolution != "none"

    @property
    def dual(self) -> bool:
        """Whether the discriminator reads image and raw image ("auto": where there is super-resolution)."""
        return self.discriminator == "dual" or (self.discriminator == "auto" and self.has_superresolution)

    def rendering(self) -> RenderingOptions:
        """The renderer's part of the options."""
        return RenderingOptions(
            box_warp=self.box_warp,
            near=self.near,
            far=self.far,
            coarse=self.samples_coarse,
            fine=self.samples_fine,
            white_back=self.white_back,
            disparity=self.disparity,
            axes=self.plane_axes,
            importance=self.importance,
            bounds=self.automatic_bounds,
        )
