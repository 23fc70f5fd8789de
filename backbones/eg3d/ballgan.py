"""BallGAN as a backbone: EG3D before an opaque sphere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...core.registry import register_backbone
from .backbone import EG3D
from .decoder import split_last_layer
from .options import EG3DOptions


@dataclass(frozen=True)
class BallGANOptions(EG3DOptions):
    """EG3D's options, with BallGAN's decoder and its start of the torgb layers."""

    torgb_init: str = "uniform"
    decoder: str = "split"


@register_backbone("ballgan")
class BallGAN(EG3D):
    """BallGAN (Shin et al. 2023): EG3D's foreground, and behind it an opaque sphere with a latent of its own.

    features = sum_i w_i c_i + T c_sphere, T the transmittance behind the foreground (section 3.1). Generator conditioning and discriminator
    are EG3D's. ``depth`` stays the foreground's; ``composite_depth`` has the sphere in it. ``background`` is the sphere of the published
    code (radius 3) unless another is named.

    >>> small = dict(z_dim=4, w_dim=8, plane_resolution=8, plane_channels=2, channel_base=64, channel_max=8, decoder_hidden=4,
    ...              superresolution="none", feature_channels=3, neural_resolution=4, image_resolution=8, samples_coarse=4, samples_fine=4,
    ...              discriminator_channel_base=64, discriminator_channel_max=8)
    >>> backbone = BallGAN(background={"name": "sphere", "z_dim": 4, "w_dim": 4, "hidden": 8}, **small)
    >>> from priorzoo.core.streams import fixed_streams
    >>> sorted(backbone.draw(2, fixed_streams(0, 2)).tensors)
    ['z', 'z_background']
    """

    Options = BallGANOptions

    def __init__(self, *, background: Mapping[str, Any] | None = None, **options: Any) -> None:
        super().__init__(background=background or {"name": "sphere"}, **options)

    @classmethod
    def provides(cls, *, background: Mapping[str, Any] | None = None, **options: Any) -> frozenset[str]:
        """EG3D's buffers, the composite depth, and both parts of the rendering."""
        return super().provides(background=background or {"name": "sphere"}, **options)

    def from_other(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """EG3D's tensors, the decoder's last layer split into density and colours; the foreground stays the same."""
        if name != EG3D.registry_name:
            return None
        return split_last_layer(tensors) if self.options.decoder == "split" else tensors
