"""The generator's networks under the names of the published files."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...core.camera import Camera
from ..backgrounds.base import Background
from ..stylegan2.layers import Noise, ToRGB
from ..stylegan2.mapping import MappingNetwork
from .compiling import run_compiled
from .decoder import Decoder, SplitDecoder
from .options import EG3DOptions
from .superresolution import SuperResolution
from .synthesis import PlaneGenerator, SynthesisNetwork

LABEL = 25


class TriPlaneGenerator(nn.Module):
    """``backbone.mapping``, ``backbone.synthesis``, ``decoder`` and, where there are, ``superresolution`` and ``background``."""

    def __init__(self, options: EG3DOptions, background: Background | None = None) -> None:
        super().__init__()
        self.compiles = False
        conditioned = options.conditioning != "none"
        self.backbone = PlaneGenerator(
            MappingNetwork(options.z_dim, LABEL if conditioned else 0, options.w_dim, layers=options.mapping_layers),
            SynthesisNetwork(
                w_dim=options.w_dim,
                resolution=options.plane_resolution,
                image_channels=3 * options.plane_channels,
                channel_base=options.channel_base,
                channel_max=options.channel_max,
            ),
        )
        if options.has_superresolution:
            self.superresolution = SuperResolution(
                options.superresolution,
                feature_channels=options.feature_channels,
                w_dim=options.w_dim,
                channels=options.superresolution_channels,
                input_size=options.superresolution_input,
                clamp=options.superresolution_clamp,
                antialias=options.superresolution_antialias,
            )
        decoder = SplitDecoder if options.decoder == "split" else Decoder
        self.decoder = decoder(
            options.plane_channels,
            options.decoder_hidden,
            options.feature_channels,
            lr_multiplier=options.decoder_lr_multiplier,
            density_gain=options.density_gain,
        )
        if options.torgb_init == "uniform":
            for module in self.modules():
                if isinstance(module, ToRGB):
                    module.start_uniform()
        if background is not None:
            self.background = background

    @property
    def mapping(self) -> MappingNetwork:
        """The mapping network."""
        network = self.backbone.mapping
        assert isinstance(network, MappingNetwork)
        return network

    @property
    def num_ws(self) -> int:
        """Number of style vectors that the planes' network reads."""
        return self.backbone.synthesis.num_ws

    def planes(self, ws: Tensor, noise: Noise) -> Tensor:
        """Planes [B,3,C,H,W] of style vectors [B,num_ws,w_dim]."""
        # Its features are not clamped: as published, this network is never computed in float16 (in bfloat16 they cannot overflow).
        kind = ws.device.type
        half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
        with torch.autocast(kind, enabled=False) if half else nullcontext():
            image = self._run(self.backbone.synthesis, ws, noise=noise)
        planes = image.unflatten(1, (3, -1))  # where channels are last in memory they stay so: a point reads them side by side
        return planes if planes.element_size() >= 4 else planes.float()

    def superresolve(self, features: Tensor, ws: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """Final image and raw image *as published* of a feature image, see `SuperResolution`."""
        images: tuple[Tensor, Tensor] = self._run(self.superresolution, features, ws, noise=noise)
        return images

    def _run(self, network: nn.Module, *tensors: Tensor, noise: Noise) -> Any:
        return run_compiled(network, *tensors, noise=noise) if self.compiles else network(*tensors, noise)


def camera_for(camera: Camera, like: Tensor) -> Camera:
    """The camera in the planes' number type: float32, or float64 where the planes are."""
    return camera.to(device=like.device, dtype=like.dtype)
