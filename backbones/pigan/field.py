"""The shape of a FiLM-SIREN as a function of world points."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...core.camera import EG3D_RADIUS
from ...core.scene import FieldSample
from .blockwise import evaluate_rays
from .siren import Folded, evaluate_plainly

WORLD_UNITS = EG3D_RADIUS
"""World units in one of the network's own, in which the camera is at radius 1: the only place where lengths are converted."""
FORWARD = (0.0, 0.0, -1.0)
"""The direction that colours are seen along where none is given, and with ``lock_view_dependence``: that of a frontal camera."""


class SirenField:
    """Point queries of a folded FiLM-SIREN: world points [B,N,3] to the raw output, its activation, and colours in [-1,1].

    ``activation`` makes density, occupancy or what ``kind`` says of the raw output, ``extent`` is in world units. Points that carry
    gradient get plain operations, differentiable again and again; others the block-by-block evaluation, differentiable once in the
    network.

    >>> from .siren import SirenNetwork
    >>> network = SirenNetwork(z_dim=4, hidden=8, layers=2)
    >>> field = SirenField(network.folded(*network.mapping_network(torch.zeros(1, 4))), "occupancy", torch.sigmoid, 0.4)
    >>> field(torch.zeros(1, 5, 3)).colour.shape
    torch.Size([1, 5, 3])
    """

    directional = True  # takes directions too

    def __init__(self, folded: Folded, kind: str, activation: Callable[[Tensor], Tensor], extent: float) -> None:
        self.folded, self.kind, self.activation, self.extent = folded, kind, activation, extent

    def __call__(self, points: Tensor, directions: Tensor | None = None) -> FieldSample:
        """Query world points [B,N,3]; ``directions`` [B,N,3]: unit ones to see the colours along, frontal if not given."""
        with torch.autocast(points.device.type, enabled=False):
            dtype = self.folded.layers[0][0].dtype
            own = points.to(dtype) / WORLD_UNITS
            seen = own.new_tensor(FORWARD).expand_as(own) if directions is None else directions.to(dtype)
            if torch.is_grad_enabled() and (points.requires_grad or seen.requires_grad):
                raw, rgb = evaluate_plainly(self.folded, own, seen)
            else:  # points as rays of one sample each
                still = torch.zeros_like(own)
                blocks, colours = evaluate_rays(self.folded, own, still, still[..., :1], seen_along=seen)
                raw, rgb = blocks[..., 0], None if colours is None else colours[:, :, 0]
            assert rgb is not None
            return FieldSample(raw, self.activation(raw), rgb * 2.0 - 1.0)
