"""The FiLM-SIREN: a network of sines whose frequencies and phases a mapping network sets (pi-GAN, Chan et al. 2021, section 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAPPING_WIDTH = 256
LEAK = 0.2
FREQUENCY_SCALE, FREQUENCY_OFFSET = 15.0, 30.0
DIVISOR = 25.0
"""What the published code divides the sines' initial weights by; its frequencies lie about 30."""
BOX = 0.24
"""Side of the published code's box in the network's own units: what lies in it is stretched to [-1,1]."""


@dataclass
class Folded:
    """A FiLM-SIREN of B samples as plain matrices: sin(w'x + b') is sin(f (w x + b) + p) with w' = f w and b' = f b + p.

    ``layers``: (w' [B,H,in], b' [B,H]) of every sine of the points; ``colour``: (w' [B,H,H], of directions [B,H,3], b' [B,H]) of the
    sine that sees the direction; ``geometry`` and ``rgb``: weight [1,H] or [3,H] and bias of the last layers, the same for all samples.
    """

    layers: list[tuple[Tensor, Tensor]]
    colour: tuple[Tensor, Tensor, Tensor]
    geometry: tuple[Tensor, Tensor]
    rgb: tuple[Tensor, Tensor]

    def __len__(self) -> int:
        return len(self.layers[0][0])

    def detached(self) -> Folded:
        """The same without gradient."""
        layers = [(w.detach(), b.detach()) for w, b in self.layers]
        w, v, b = (t.detach() for t in self.colour)
        (gw, gb), (cw, cb) = self.geometry, self.rgb
        return Folded(layers, (w, v, b), (gw.detach(), gb.detach()), (cw.detach(), cb.detach()))


class FiLMLayer(nn.Module):
    """h -> sin(f (w h + b) + p): a linear layer whose sine a latent tunes."""

    def __init__(self, inputs: int, outputs: int, *, first: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        sine_init(self.layer, first=first)

    def folded(self, frequency: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """Weight [B,H,in] and bias [B,H] with the frequencies and phases [B,H] in them."""
        return frequency[:, :, None] * self.layer.weight, torch.addcmul(phase, frequency, self.layer.bias)


class MappingNetwork(nn.Module):
    """z [B,Z] to the raw frequencies and phases of all sines, [B,L*H] each; z is not normalised."""

    def __init__(self, z_dim: int, outputs: int) -> None:
        super().__init__()
        widths = [z_dim, MAPPING_WIDTH, MAPPING_WIDTH, MAPPING_WIDTH]
        layers: list[nn.Module] = []
        for inputs, width in pairwise(widths):
            layers += [nn.Linear(inputs, width), nn.LeakyReLU(LEAK)]
        last = nn.Linear(MAPPING_WIDTH, 2 * outputs)
        self.network = nn.Sequential(*layers, last)
        for module in self.network:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, a=LEAK, mode="fan_in", nonlinearity="leaky_relu")
        with torch.no_grad():
            last.weight.mul_(0.25)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw frequencies and phases, [B,L*H] each."""
        frequencies, phases = self.network(z).chunk(2, dim=1)
        return frequencies, phases


class SirenNetwork(nn.Module):
    """Points to one number of geometry and, with a viewing direction, a colour, under the tensor names of the published files.

    ``layers`` sines of width ``hidden`` see the point, one more sees the direction too. ``warp`` stretches the published box (side 0.24)
    to [-1,1] first (the classes named SPATIALSIREN do, TALLSIREN does not: same tensors, another function).

    >>> network = SirenNetwork(z_dim=4, hidden=8, layers=2)
    >>> folded = network.folded(*network.mapping_network(torch.zeros(1, 4)))
    >>> raw, rgb = evaluate_plainly(folded, torch.zeros(1, 5, 3), torch.zeros(1, 5, 3))
    >>> raw.shape, rgb.shape
    (torch.Size([1, 5]), torch.Size([1, 5, 3]))
    """

    def __init__(self, *, z_dim: int = 256, hidden: int = 256, layers: int = 8, warp: bool = True) -> None:
        super().__init__()
        self.hidden, self.stretch = hidden, 2.0 / BOX if warp else 1.0
        self.network = nn.ModuleList(FiLMLayer(3 if i == 0 else hidden, hidden, first=i == 0) for i in range(layers))
        self.final_layer = nn.Linear(hidden, 1)
        self.color_layer_sine = FiLMLayer(hidden + 3, hidden)
        self.color_layer_linear = nn.Sequential(nn.Linear(hidden, 3))
        for linear in (self.final_layer, self.color_layer_linear[0]):
            assert isinstance(linear, nn.Linear)
            sine_init(linear)
        self.mapping_network = MappingNetwork(z_dim, (layers + 1) * hidden)

    def folded(self, frequencies: Tensor, phases: Tensor) -> Folded:
        """Fold the mapping's raw output [B,(L+1)*H] into the weights: f = 15 raw + 30; the last H of either are the colour's."""
        tuned = (frequencies * FREQUENCY_SCALE + FREQUENCY_OFFSET).chunk(len(self.network) + 1, dim=1)
        shifts = phases.chunk(len(self.network) + 1, dim=1)
        layers = [layer.folded(f, p) for layer, f, p in zip(self.network, tuned[:-1], shifts[:-1], strict=True)]  # type: ignore[operator]
        layers[0] = (layers[0][0] * self.stretch, layers[0][1])
        weight, bias = self.color_layer_sine.folded(tuned[-1], shifts[-1])  # its inputs are the direction, then the features
        last, rgb = self.final_layer, self.color_layer_linear[0]
        assert isinstance(rgb, nn.Linear)
        return Folded(layers, (weight[:, :, 3:].contiguous(), weight[:, :, :3], bias), (last.weight, last.bias), (rgb.weight, rgb.bias))


@torch.no_grad()
def sine_init(linear: nn.Linear, *, first: bool = False) -> None:
    """Weights U(-1/n, 1/n) of n inputs for the first layer, else U(-sqrt(6/n)/25, sqrt(6/n)/25); biases as torch's own."""
    inputs = linear.weight.shape[1]
    limit = 1.0 / inputs if first else math.sqrt(6.0 / inputs) / DIVISOR
    linear.weight.uniform_(-limit, limit)


def evaluate_plainly(folded: Folded, points: Tensor, directions: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Raw geometry [B,N] and colours [B,N,3] in [0,1] at points [B,N,3] seen along ``directions`` [B,N,3] (None: no colours).

    Plain operations on all points at once, differentiable any number of times in everything.
    """
    h = points
    for weight, bias in folded.layers:
        h = torch.baddbmm(bias[:, None], h, weight.mT).sin()
    raw = F.linear(h, *folded.geometry)[..., 0]
    if directions is None:
        return raw, None
    weight, of_direction, bias = folded.colour
    seen = torch.baddbmm(bias[:, None], directions, of_direction.mT)
    return raw, F.linear(torch.baddbmm(seen, h, weight.mT).sin(), *folded.rgb).sigmoid()
