"""Clips, frame by frame: a camera that goes round a head, and heads that turn into one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..backbones.base import Latents
from ..core.errors import PriorzooError, did_you_mean
from .samples import Drawing, grid_of_strips
from .sheets import Picture
from .sources import Source, parse_numbers

KINDS = ("orbit", "interpolation")
PATHS = ("cubic", "linear")
ORBIT = (0.35, 0.25)
"""Half the widths of the common ellipse, yaw and pitch, in radians."""


@dataclass
class Clip:
    """A closed clip of ``frames`` frames: the frame after the last would be the first.

    ``orbit``: every seed beside the others, seen from yaw a sin(2 pi t), pitch b cos(2 pi t), t = frame / frames.
    ``interpolation``: one head that passes through all seeds in turn and back, along a closed ``cubic`` (smooth) or
    ``linear`` path through the prepared latents (w); the camera stays in front unless ``sway`` is given.
    ``sway`` is (a, b) in radians; None is the kind's own. Raises PriorzooError for what does not fit.
    """

    kind: str = "orbit"
    frames: int = 120
    path: str = "cubic"
    sway: tuple[float, float] | None = None
    drawing: Drawing = field(default_factory=Drawing)
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for what, value, allowed in (("kind", self.kind, KINDS), ("path", self.path, PATHS)):
            if value not in allowed:
                raise PriorzooError(f"--{what} {value!r} is not one of {', '.join(allowed)}{did_you_mean(value, allowed)}")
        if self.frames < 2:
            raise PriorzooError(f"--frames must be at least 2, got {self.frames}")

    def check_seeds(self, count: int) -> None:
        """Raise PriorzooError for a number of seeds that makes no clip of this kind."""
        if self.kind == "interpolation" and count < 2:
            raise PriorzooError(f"an interpolation needs two seeds or more, got {count}")
        if self.kind == "interpolation" and self.grid is not None:
            raise PriorzooError("--grid is for an orbit of several seeds: an interpolation shows one head")

    def pose(self, frame: int) -> tuple[float, float]:
        """Yaw and pitch of a frame in radians.

        >>> [round(angle, 3) for angle in Clip(frames=4).pose(1)]
        [0.35, 0.0]
        """
        yaw, pitch = self.sway or (ORBIT if self.kind == "orbit" else (0.0, 0.0))
        angle = 2.0 * math.pi * frame / self.frames
        return yaw * math.sin(angle), pitch * math.cos(angle)


@torch.no_grad()
def clip_frames(
    source: Source,
    clip: Clip,
    seeds: Sequence[int],
    *,
    truncation: float = 1.0,
    official: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Picture]:
    """Draw the frames one after the other; only one is ever held. All are of one size, with the same colours of depth."""
    clip.check_seeds(len(seeds))
    draw = _orbit if clip.kind == "orbit" else _interpolation
    frames = draw(source, clip, seeds, truncation, official)
    for done, frame in enumerate(frames, start=1):
        yield frame
        if progress is not None:
            progress(done, clip.frames)


def _orbit(source: Source, clip: Clip, seeds: Sequence[int], truncation: float, official: bool) -> Iterator[Picture]:
    # A shape is made once and kept for the whole clip; seeds that are many are bounded by their planes' memory.
    shapes = [
        source.backbone.materialise(source.latents([seed], truncation=truncation, official=official), source.streams([seed]))
        for seed in seeds
    ]
    for frame in range(clip.frames):
        yaw, pitch = clip.pose(frame)
        camera = source.camera([yaw], [pitch])
        strips = [clip.drawing.pictures(source, shape, camera, source.streams([seed])) for seed, shape in zip(seeds, shapes, strict=True)]
        yield grid_of_strips(strips, clip.grid)


def _interpolation(source: Source, clip: Clip, seeds: Sequence[int], truncation: float, official: bool) -> Iterator[Picture]:
    keys = source.latents(seeds, truncation=truncation, official=official)
    streams = source.streams([seeds[0]])  # noise, where a model has it, is the same in every frame
    for frame in range(clip.frames):
        yaw, pitch = clip.pose(frame)
        place = frame * len(seeds) / clip.frames
        shape = source.backbone.materialise(between(keys, place, clip.path), streams)
        yield grid_of_strips([clip.drawing.pictures(source, shape, source.camera([yaw], [pitch]), streams)])


def between(keys: Latents, place: float, path: str = "cubic") -> Latents:
    """The latents [1,...] at ``place`` of the closed path through keys [K,...]: k is key k, K is key 0 again.

    ``linear`` goes straight from key to key; ``cubic`` is the periodic cubic spline, whose speed does not jump.

    >>> keys = Latents({"w": torch.tensor([[0.0], [1.0]])})
    >>> between(keys, 0.25, "linear")["w"].tolist(), between(keys, 1.0)["w"].tolist()
    ([[0.25]], [[1.0]])
    """
    if path == "linear":
        low, share = int(place) % len(keys), place - math.floor(place)
        a, b = keys[[low]], keys[[(low + 1) % len(keys)]]
        out: Latents = a.lerp(b, share)
        return out
    return Latents({name: _on_spline(tensor, place) for name, tensor in keys.tensors.items()})


def _on_spline(tensor: Tensor, place: float) -> Tensor:
    from scipy.interpolate import CubicSpline

    rows = tensor.detach().cpu().double().flatten(1).numpy()
    closed = np.concatenate([rows, rows[:1]])
    value = CubicSpline(np.arange(len(closed)), closed, bc_type="periodic")(place % len(rows))
    return torch.from_numpy(value).view(1, *tensor.shape[1:]).to(tensor)


def parse_sway(text: str | None) -> tuple[float, float] | None:
    """Read yaw and pitch in radians.

    >>> parse_sway("0.4,0.1")
    (0.4, 0.1)
    """
    if text is None:
        return None
    numbers = parse_numbers(text, "--sway")
    if len(numbers) != 2:
        raise PriorzooError(f"--sway {text!r}: expected yaw and pitch, such as 0.35,0.25")
    return numbers[0], numbers[1]
