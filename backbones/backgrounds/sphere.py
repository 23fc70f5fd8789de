"""BallGAN's background: an opaque sphere around the scene, painted by a small modulated network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...core.errors import PriorzooError
from ...core.options import check_choice, check_count, check_number
from ...core.registry import register_background
from ...core.streams import Streams
from ..stylegan2.activation import LEAK
from ..stylegan2.layers import SQRT2, FullyConnected
from ..stylegan2.mapping import MappingNetwork, truncate
from .base import Background

FREQUENCIES = 10
NETWORKS = ("modulated", "concatenated")
COLOUR_SCALE, COLOUR_OFFSET = 1.002, -0.001  # the foreground decoder's range


def sphere_hit(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Where rays from inside leave a sphere about the world's origin: distances [B,R] and points [B,R,3].

    t = m + sqrt(r^2 - |o + m d|^2), m = -o.d (BallGAN, Shin et al. 2023, section 3.2).

    Args: origins, unit directions [B,R,3]; radius in world units. Raises PriorzooError when an origin lies outside.

    >>> t, point = sphere_hit(torch.tensor([[[0.0, 0.0, 1.0]]]), torch.tensor([[[0.0, 0.0, -1.0]]]), 3.0)
    >>> t.item(), point.flatten().tolist()
    (4.0, [0.0, 0.0, -3.0])
    """
    middle = -(origins * directions).sum(dim=-1)
    nearest = origins + middle[..., None] * directions
    square = radius**2 - nearest.square().sum(dim=-1)
    if bool((origins.detach().square().sum(dim=-1) >= radius**2).any()):
        farthest = origins.norm(dim=-1).max().item()
        raise PriorzooError(f"background sphere: a camera is {farthest:.3g} world units from the origin, outside the radius {radius:g}")
    distance = middle + square.clamp_min(0.0).sqrt()
    return distance, origins + distance[..., None] * directions


def sphere_angles(points: Tensor, radius: float) -> Tensor:
    """Polar angles [...,2] of points [...,3] on the sphere: theta in [0,pi] from +y, phi in [0,2pi) from +z towards +x.

    >>> [round(v, 4) for v in sphere_angles(torch.tensor([[0.0, 0.0, 3.0], [3.0, 0.0, 0.0]]), 3.0)[:, 1].tolist()]
    [0.0, 1.5708]
    """
    # Rounding can make the quotient exceed 1. Its slope is infinite at the poles; nothing in training asks for it.
    theta = (points[..., 1] / radius).clamp(-1.0, 1.0).acos()
    phi = torch.atan2(points[..., 0], points[..., 2]) % (2 * math.pi)
    return torch.stack([theta, phi], dim=-1)


def angle_code(angles: Tensor) -> Tensor:
    """Positional code [...,40] of angles [...,2]: of q = angles / 2pi the sines, then cosines, of 2^i pi q for i = 0 .. 9.

    >>> angle_code(torch.zeros(1, 2))[0, :4].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    waves = (angles / 2.0)[..., None, :] * (2.0 ** torch.arange(FREQUENCIES, dtype=angles.dtype, device=angles.device))[:, None]
    return torch.cat([waves.sin(), waves.cos()], dim=-1).flatten(-2)


class ModulatedLinear(nn.Module):
    """Modulated 1x1 convolution over rays: demodulated with leaky ReLU, or (``output``) scaled by 1/sqrt(in) and linear."""

    def __init__(self, in_features: int, out_features: int, w_dim: int, *, output: bool = False) -> None:
        super().__init__()
        self.output = output
        self.affine = FullyConnected(w_dim, in_features, bias_init=1.0)
        weight, bias = torch.randn(out_features, in_features, 1, 1), torch.zeros(out_features)
        if output:  # as BallGAN initialises its last layers
            limit = 1.0 / math.sqrt(in_features)
            weight, bias = weight.uniform_(-limit, limit), bias.uniform_(-limit, limit)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map x [B,in,R] under style w [B,w_dim] to [B,out,R]."""
        style = self.affine(w)
        if self.output:
            styled = self.weight[:, :, 0, 0] * (style / math.sqrt(style.shape[1]))[:, None]
            return torch.baddbmm(self.bias[:, None], styled, x)
        styled = self.weight[:, :, 0, 0] * style[:, None]
        styled = styled * (styled.square().sum(dim=2, keepdim=True) + 1e-8).rsqrt() * SQRT2
        return F.leaky_relu(torch.baddbmm((self.bias * SQRT2)[:, None], styled, x), LEAK)


class SphereNetwork(nn.Module):
    """Codes of directions to features, under the tensor names of the published files.

    ``modulated``: five modulated layers driven by w (published as version 1); ``concatenated``: plain layers that read z beside the code
    (version 0).
    """

    def __init__(self, channels: int, style: int, hidden: int, layers: int, modulated: bool) -> None:
        super().__init__()
        self.modulated = modulated
        code = 4 * FREQUENCIES
        if modulated:
            self.fc_in: nn.Module = ModulatedLinear(code, hidden, style)
            self.blocks = nn.ModuleList(ModulatedLinear(hidden, hidden, style) for _ in range(layers - 1))
            self.feat_out: nn.Module = ModulatedLinear(hidden, channels, style, output=True)
        else:
            self.fc_in = nn.Linear(code + style, hidden)
            self.blocks = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
            self.feat_out = nn.Linear(hidden, channels)

    def forward(self, code: Tensor, style: Tensor) -> Tensor:
        """Map code [B,40,R] and style (w, or z) [B,D] to features [B,C,R] in (-0.001, 1.001)."""
        if self.modulated:
            x = self.fc_in(code, style)
            for block in self.blocks:
                x = block(x, style)
            x = self.feat_out(x, style)
        else:
            x = torch.cat([code.transpose(1, 2), style[:, None].expand(-1, code.shape[2], -1)], dim=2)
            for layer in (self.fc_in, *self.blocks):
                x = F.relu(layer(x))
            x = self.feat_out(x).transpose(1, 2)
        return x.sigmoid() * COLOUR_SCALE + COLOUR_OFFSET


@register_background("sphere")
class Sphere(Background):
    """An opaque sphere about the world's origin with a latent of its own (BallGAN, Shin et al. 2023, section 3.2).

    features = network(code(theta, phi), w), code the sines and cosines of ten octaves of both angles. The camera stands inside.

    Options:
        radius: in world units; must hold every camera. z_dim, w_dim: of its latent and style.
        mapping_layers: of its own mapping network, which sees no camera. hidden: width; layers: hidden layers of the network.
        network: ``modulated`` (the published version 1) or ``concatenated`` (version 0: z beside the code, no mapping).

    >>> from priorzoo.core.streams import fixed_streams
    >>> sphere = Sphere(channels=3, z_dim=4, w_dim=4, mapping_layers=1, hidden=8)
    >>> latents = sphere.prepare(sphere.draw(2, fixed_streams(0, 2)))
    >>> origins, directions = torch.zeros(2, 5, 3), torch.tensor([0.0, 0.0, 1.0]).expand(2, 5, 3)
    >>> features, distance = sphere(latents, origins, directions)
    >>> features.shape, distance[0, 0].item()
    (torch.Size([2, 3, 5]), 3.0)
    """

    def __init__(
        self,
        *,
        channels: int,
        radius: float = 3.0,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        hidden: int = 64,
        layers: int = 4,
        network: str = "modulated",
    ) -> None:
        super().__init__()
        check_number("background sphere", "radius", radius, above=0.0)
        for option, value in {"z_dim": z_dim, "w_dim": w_dim, "mapping_layers": mapping_layers, "hidden": hidden, "layers": layers}.items():
            check_count("background sphere", option, value)
        check_choice("background sphere", "network", network, NETWORKS)
        self.radius, self.z_dim = radius, z_dim
        modulated = network == "modulated"
        self.mapping = MappingNetwork(z_dim, 0, w_dim, layers=mapping_layers) if modulated else None
        self.network = SphereNetwork(channels, w_dim if modulated else z_dim, hidden, layers, modulated)

    def draw(self, n: int, streams: Streams) -> dict[str, Tensor]:
        """Draw ``n`` standard normal z of its own."""
        return {"z_background": streams("latents_background").normal(self.z_dim)}

    def prepare(self, latents: Mapping[str, Tensor], *, truncation: float = 1.0, update_averages: bool = False) -> dict[str, Tensor]:
        """Map z to w [B,w_dim]; the camera plays no part."""
        z = latents["z_background"]
        if self.mapping is None:
            return {"w_background": z}
        w = self.mapping(z, None, update_average=update_averages)
        return {"w_background": truncate(w, self.mapping.w_avg.to(w), truncation, 1)[:, 0]}

    def forward(self, latents: Mapping[str, Tensor], origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B,C,R] of where the rays leave the sphere, and the distances [B,R]."""
        distance, points = sphere_hit(origins, directions, self.radius)
        code = angle_code(sphere_angles(points, self.radius)).transpose(1, 2)
        return self.network(code, latents["w_background"].to(code)), distance  # under autocast the mapping's output is half precision
