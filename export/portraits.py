"""Portraits: one generator's heads drawn in the same way, so that models can be laid side by side for the same latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backbones.base import Backbone, Sampling
from ..core.camera import Camera
from ..core.scene import Scene
from ..core.streams import fixed_streams
from .sheets import Picture, image_pictures, normal_pictures, shaded_pictures

VIEWS = (-0.6, 0.0, 0.6)
"""Yaws, in radians, of the shaded views."""
_NEEDS = frozenset({"depth", "opacity", "rays"})
_AT_ONCE = 4  # heads rendered together: bounds memory with dense samples

Heat = Callable[[Scene], Tensor]
"""Scene to a non-negative map [B,1,h,w], exactly 0 where it did not look."""


@dataclass(frozen=True)
class Portrait:
    """One head: frontal ``image`` and ``normals``, shaded ``surfaces`` from VIEWS, and ``heat`` [1,h,w] of the frontal
    view.
    """

    image: Picture
    normals: Picture
    surfaces: tuple[Picture, ...]
    heat: Tensor


@torch.no_grad()
def portraits(
    backbone: Backbone,
    count: int,
    *,
    seed: int = 0,
    heat: Heat | None = None,
    resolution: int | None = None,
    samples: int | None = None,
    conditioned: bool = False,
) -> list[Portrait]:
    """Render the first ``count`` heads of ``seed``: the same latents for every backbone of one latent law.

    Rendered without random numbers, with ``samples`` coarse and as many fine samples a ray (None: the backbone's own
    counts), at ``resolution`` (None: the backbone's own). ``conditioned`` gives the mapping the frontal camera;
    otherwise it gets none.
    """
    out: list[Portrait] = []
    for first in range(0, count, _AT_ONCE):
        streams = fixed_streams(seed, min(_AT_ONCE, count - first), first=first, device=_device(backbone))
        sampling = Sampling("deterministic", samples, samples)
        cameras = {yaw: _camera(yaw, len(streams.indices), _device(backbone)) for yaw in (*VIEWS, 0.0)}
        condition = cameras[0.0].label() if conditioned else None
        latents = backbone.prepare(backbone.draw(len(streams.indices), streams), condition)
        scenes = {
            yaw: backbone.render(
                latents, camera, _NEEDS | {"image"} if yaw == 0.0 else _NEEDS,
                streams=streams, resolution=resolution, sampling=sampling,
            )
            for yaw, camera in cameras.items()
        }  # fmt: skip
        out += scene_portraits(scenes, heat)
    return out


def scene_portraits(scenes: dict[float, Scene], heat: Heat | None = None) -> list[Portrait]:
    """Return the portraits of rendered scenes by yaw; yaw 0 must be among them and carry ``image``."""
    front = scenes[0.0]
    surfaces = [shaded_pictures(scenes[yaw].normals, scenes[yaw].opacity, _of(scenes[yaw])) for yaw in sorted(scenes)]
    heats = torch.zeros_like(front.depth) if heat is None else heat(front)
    images = image_pictures(front.image)
    normals = normal_pictures(front.normals, front.opacity, _of(front))
    return [
        Portrait(images[i], normals[i], tuple(view[i] for view in surfaces), heats[i].detach().float().cpu()) for i in range(len(images))
    ]


def _camera(yaw: float, count: int, device: torch.device) -> Camera:
    return Camera.looking_at_origin(torch.full((count,), yaw), torch.zeros(count)).to(device)


def _device(backbone: Backbone) -> torch.device:
    return next((p.device for p in backbone.parameters()), torch.device("cpu"))


def _of(scene: Scene) -> Camera:
    if scene.camera is None:
        raise ValueError("a portrait is drawn of a scene with a camera")
    return scene.camera
