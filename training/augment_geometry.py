"""The geometric half of adaptive augmentation: what is drawn, and the one 2-D matrix a sample that comes of it.

Karras et al. 2020 (Training Generative Adversarial Networks with Limited Data), appendix B: pixel blitting and general transforms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.streams import Stream

WHOLE_SHIFT = 0.125  # largest shift by whole pixels, in image sides
SCALE = 0.2  # deviation of log2 of both scalings
SHIFT = 0.125  # deviation of the shift by fractions of a pixel, in image sides


@dataclass
class Geometry:
    """Transforms drawn for B samples, applied in this order.

    ``flip`` [B] bool left to right; ``turns`` [B] quarter turns; ``shift`` [B,2] whole pixels right and down; then ``general`` [B,3,3],
    which maps a place of the outcome to where it is taken from, in pixels from the image's centre, x right, y down. ``moved`` [B] says
    where ``general`` is more than the identity.
    """

    flip: Tensor
    turns: Tensor
    shift: Tensor
    general: Tensor
    moved: Tensor

    @property
    def blitted(self) -> Tensor:
        """Where pixels change their places as a whole, [B] bool."""
        return self.flip | (self.turns != 0) | (self.shift != 0).any(dim=1)

    def inverse(self) -> Tensor:
        """Matrix [B,3,3] from a place of the outcome to where it is taken from, of all transforms together."""
        like = self.general
        flip = scaling(torch.where(self.flip, -1.0, 1.0).to(like), torch.ones_like(like[:, 0, 0]))
        turn = rotation(self.turns.to(like) * (math.pi / 2)).round()
        shift = translation(-self.shift.to(like))
        # The outcome's place is taken back through the last transform first.
        return flip @ turn @ shift @ like


def translation(vector: Tensor) -> Tensor:
    """Matrices [B,3,3] that add ``vector`` [B,2]."""
    out = torch.eye(3, dtype=vector.dtype, device=vector.device).repeat(len(vector), 1, 1)
    out[:, :2, 2] = vector
    return out


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Matrices [B,3,3] that multiply by x [B] and y [B]."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def rotation(angle: Tensor) -> Tensor:
    """Matrices [B,3,3] that turn by ``angle`` [B] radians, x towards y.

    >>> rotation(torch.tensor([math.pi / 2])).round()[0, :2, :2].tolist()
    [[-0.0, -1.0], [1.0, -0.0]]
    """
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    rows = [torch.stack(row, dim=1) for row in ((cos, -sin, zero), (sin, cos, zero), (zero, zero, zero + 1.0))]
    return torch.stack(rows, dim=1)


def draw_geometry(stream: Stream, probability: float, side: int, dtype: torch.dtype = torch.float32) -> Geometry:
    """Draw the transforms of a stream's samples for images of ``side`` pixels; each acts with ``probability`` (more than 1 is 1).

    In order: flip (of those it acts on, half), quarter turns {0..3}, shift round(side U(-1/8, 1/8)); scale 2^N(0, 0.2^2), turn U(-pi, pi),
    stretch x by s and y by 1/s with s = 2^N(0, 0.2^2), turn again, shift side N(0, 1/8^2). Both turns act with 1 - sqrt(1 - p), so that
    one of them acts with p. The draws' number does not depend on the probability.
    """
    gate, even = stream.uniform(8), stream.uniform(6).to(dtype)
    normal = stream.normal(4).to(dtype)
    acts = gate < probability
    turned = gate[:, 4:6] < 1.0 - math.sqrt(1.0 - min(probability, 1.0))
    whole = ((2 * even[:, 2:4] - 1) * WHOLE_SHIFT * side).round()

    one = torch.ones_like(even[:, 0])
    scale = torch.where(acts[:, 3], torch.exp2(SCALE * normal[:, 0]), one)
    stretch = torch.where(acts[:, 6], torch.exp2(SCALE * normal[:, 1]), one)
    angles = torch.where(turned, (2 * even[:, 4:6] - 1) * math.pi, 0.0)
    fraction = torch.where(acts[:, 7:8], SHIFT * side * normal[:, 2:4], 0.0)
    general = (
        scaling(1 / scale, 1 / scale)
        @ rotation(-angles[:, 0])
        @ scaling(1 / stretch, stretch)
        @ rotation(-angles[:, 1])
        @ translation(-fraction)
    )
    return Geometry(
        flip=acts[:, 0] & (even[:, 0] < 0.5),
        turns=torch.where(acts[:, 1], (4 * even[:, 1]).long().clamp_max(3), 0),
        shift=torch.where(acts[:, 2:3], whole, 0.0).long(),
        general=general,
        moved=acts[:, 3] | turned.any(dim=1) | acts[:, 6] | acts[:, 7],
    )
