"""The step's one extra camera, drawn from the recipe's ``second_view:``."""

from __future__ import annotations

import torch

from ..core.camera import Camera
from ..core.streams import Streams


def second_camera(spec: object, camera: Camera, streams: Streams) -> Camera:
    """Return one more camera a sample.

    ``near``: the first one turned about the world's vertical axis by an angle uniform in +-``angle`` radians; ``mirrored``: the
    camera that sees the mirrored head; ``frontal``: at the same distance on +z. ``zoom`` multiplies the focal length.
    """
    kind, angle, zoom = spec.kind, spec.angle, spec.zoom  # type: ignore[attr-defined]
    if kind == "mirrored":
        other = camera.mirrored()
    elif kind == "frontal":
        zeros = torch.zeros(len(camera), device=camera.cam2world.device)
        radius = camera.position.norm(dim=-1, keepdim=True)
        straight = Camera.looking_at_origin(zeros, zeros)
        other = Camera(straight.cam2world.clone(), camera.intrinsics)
        other.cam2world[:, :3, 3] = other.cam2world[:, :3, 3] * radius / straight.position.norm(dim=-1, keepdim=True)
    else:
        turn = (streams("camera").uniform(1)[:, 0] * 2 - 1) * angle
        cos, sin, zero, one = turn.cos(), turn.sin(), torch.zeros_like(turn), torch.ones_like(turn)
        rows = [cos, zero, sin, zero, zero, one, zero, zero, -sin, zero, cos, zero, zero, zero, zero, one]
        rotation = torch.stack(rows, dim=-1).reshape(-1, 4, 4).to(camera.cam2world)
        other = Camera(rotation @ camera.cam2world, camera.intrinsics)
    return other.zoomed(zoom) if zoom != 1.0 else other
