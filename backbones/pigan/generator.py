"""pi-GAN's generator: the FiLM-SIREN, the centre that truncation pulls its frequencies towards, and what stands behind."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..backgrounds.base import Background
from .siren import Folded, SirenNetwork

AVERAGE_COUNT = 10_000
CHUNK = 1000
KEPT = 0.998
"""The share of the running centre that a step of training keeps."""


class SirenGenerator(nn.Module):
    """``siren`` under the tensor names of the published files, and ``average_frequencies``, ``average_phases`` [(L+1)*H], which
    the published code draws anew whenever it needs them.
    """

    average_frequencies: Tensor
    average_phases: Tensor

    def __init__(self, siren: SirenNetwork, z_dim: int, background: Background | None = None) -> None:
        super().__init__()
        self.siren, self.z_dim = siren, z_dim
        if background is not None:
            self.background = background
        count = (len(siren.network) + 1) * siren.hidden
        self.register_buffer("average_frequencies", torch.zeros(count))
        self.register_buffer("average_phases", torch.zeros(count))

    def map(self, z: Tensor, *, truncation: float = 1.0, update_averages: bool = False) -> tuple[Tensor, Tensor]:
        """Raw frequencies and phases [B,(L+1)*H] of z [B,Z]: centre + truncation (raw - centre).

        ``update_averages`` moves the centre towards the batch's mean.
        """
        with torch.autocast(z.device.type, enabled=False):
            frequencies, phases = self.siren.mapping_network(z.to(self.average_frequencies.dtype))
        if update_averages:
            for centre, values in ((self.average_frequencies, frequencies), (self.average_phases, phases)):
                centre.lerp_(values.detach().mean(dim=0), 1.0 - KEPT)
        if truncation == 1.0:
            return frequencies, phases
        return self.average_frequencies.lerp(frequencies, truncation), self.average_phases.lerp(phases, truncation)

    @torch.no_grad()
    def generate_averages(self, count: int = AVERAGE_COUNT, seed: int = 0) -> None:
        """Set the centre to the mean over ``count`` standard normal z, drawn from ``seed``; it is stored with the weights."""
        centre = self.average_frequencies
        draws = torch.Generator().manual_seed(seed)
        totals = [torch.zeros_like(centre, dtype=torch.float64) for _ in range(2)]
        for first in range(0, count, CHUNK):
            z = torch.randn(min(CHUNK, count - first), self.z_dim, generator=draws)
            for total, values in zip(totals, self.map(z.to(centre)), strict=True):
                total += values.sum(dim=0)
        for buffer, total in zip((centre, self.average_phases), totals, strict=True):
            buffer.copy_(total / count)

    def folded(self, frequencies: Tensor, phases: Tensor) -> Folded:
        """The network of these raw frequencies and phases as plain matrices."""
        with torch.autocast(frequencies.device.type, enabled=False):
            return self.siren.folded(frequencies, phases)
