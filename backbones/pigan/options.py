"""The options of the pi-GAN backbone, checked before anything is built."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from ...core.errors import PriorzooError, did_you_mean
from ...core.options import check_choice, check_number
from ...rendering.samples import ACTIVATIONS
from .cameras import MODES, CameraLaw
from .discriminators import DESIGNS, POOLED_WIDTHS, STRIDED_WIDTHS
from .renderer import LAST, RenderingOptions

CHOICES = {
    "density": ACTIVATIONS,
    "last_interval": LAST,
    "depth": ("expected", "as_published"),
    "rays": ("centres", "corners"),
    "reduction": ("nearest", "antialiased"),
    "discriminator": tuple(DESIGNS),
    "camera_mode": MODES,
}
COUNTS = {"z_dim": 1, "hidden": 1, "layers": 1, "samples_fine": 0, "discriminator_channel_max": 1, "discriminator_latent": 1,
          "density_noise_steps": 0, "fade_steps": 0}  # fmt: skip
Kind = TypeVar("Kind", bound="PiGANOptions")


@dataclass(frozen=True)
class PiGANOptions:
    """Every size and rule of the backbone; the defaults are the published CelebA model's, but for ``rays``. Lengths (``near``, ``far``,
    ``extent``) are in the network's own units, in which the camera is at radius 1.

    ``box_warp``: whether a box of side 0.24 is stretched to [-1,1] (published as SPATIALSIREN; TALLSIREN does not).
    ``density``: relu or softplus of the raw output (softplus makes the last sample opaque while ``last_interval`` is infinite).
    ``density_noise``: deviation of what is added to the raw output at the first step of a training; it falls to nothing in
    ``density_noise_steps``. ``last_back``: the last sample gets all that is left; ``lock_view_dependence``: colours are those seen from the
    front. ``depth: as_published`` is sum(w t), not divided by sum(w). ``rays``: through the pixels' ``centres``, or from image ``corners``
    to corners (published). ``extent``: half the side of the cube of which meshes are made. ``reduction``: how real images are made smaller.
    ``discriminator``: one of ccs, ccs_encoder, strided, progressive, progressive_encoder; each stage's first block fades in over
    ``fade_steps``. ``camera_mode`` and what follows is the camera law, in pi-GAN's angles (radians, pi/2 is frontal): see `CameraLaw`.
    """

    owner: ClassVar[str] = "backbone pigan"  # whose they are, in messages
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = CHOICES
    counts: ClassVar[Mapping[str, int]] = COUNTS

    z_dim: int = 256
    hidden: int = 256
    layers: int = 8
    box_warp: bool = True
    near: float = 0.88
    far: float = 1.12
    samples_coarse: int = 12
    samples_fine: int = 12
    density: str = "relu"
    density_noise: float = 1.0
    density_noise_steps: int = 5000
    last_interval: str = "infinite"
    white_back: bool = False
    last_back: bool = False
    lock_view_dependence: bool = False
    depth: str = "expected"
    rays: str = "centres"
    extent: float = 0.15
    neural_resolution: int = 64
    image_resolution: int = 64
    reduction: str = "nearest"
    discriminator: str = "ccs_encoder"
    discriminator_channel_max: int = 400
    discriminator_latent: int = 256
    fade_steps: int = 10_000
    camera_mode: str = "normal"
    pitch_mean: float = math.pi / 2
    pitch_deviation: float = 0.155
    yaw_mean: float = math.pi / 2
    yaw_deviation: float = 0.3
    field_of_view: float = 12.0

    @classmethod
    def from_mapping(cls: type[Kind], options: dict[str, Any]) -> Kind:
        """Build from keyword options; an unknown one is a PriorzooError with the nearest name."""
        names = [field.name for field in fields(cls) if field.init]
        for name in options:
            if name not in names:
                raise PriorzooError(f"{cls.owner}: unknown option {name!r}{did_you_mean(name, names)}; allowed: {', '.join(names)}")
        return cls(**options)

    def __post_init__(self) -> None:
        for name, allowed in self.choices.items():
            check_choice(self.owner, name, getattr(self, name), allowed)
        for name, least in self.counts.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise PriorzooError(f"{self.owner}: {name} must be a whole number >= {least}, got {value!r}")
        fewest = 3 if self.samples_fine else 2
        if self.samples_coarse < fewest:
            raise PriorzooError(f"{self.owner}: samples_coarse must be at least {fewest}, got {self.samples_coarse}")
        check_number(self.owner, "density_noise", self.density_noise, least=0.0)
        check_number(self.owner, "extent", self.extent, above=0.0)
        most = 2 ** len(POOLED_WIDTHS if DESIGNS[self.discriminator].pooled else STRIDED_WIDTHS)
        for name in ("neural_resolution", "image_resolution"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 4 or value & (value - 1):
                raise PriorzooError(f"{self.owner}: {name} must be a power of two of at least 4, got {value}")
        if self.neural_resolution > most:
            raise PriorzooError(
                f"{self.owner}: neural_resolution {self.neural_resolution} is more than discriminator {self.discriminator} takes, {most}"
            )
        self.rendering()
        self.camera_law()

    def rendering(self) -> RenderingOptions:
        """The renderer's part of the options."""
        return RenderingOptions(self.near, self.far, self.density, self.last_interval, self.white_back, self.last_back)

    def camera_law(self) -> CameraLaw:
        """The camera law's part of the options."""
        return CameraLaw(
            self.camera_mode, self.pitch_mean, self.pitch_deviation, self.yaw_mean, self.yaw_deviation, self.field_of_view
        )  # fmt: skip
