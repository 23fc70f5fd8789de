"""Samples as pictures: some latents, from some poses, as whichever buffers are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch

from ..backbones.base import Latents, Sampling
from ..core.camera import Camera
from ..core.errors import PriorzooError
from ..core.streams import Streams
from .buffer_pictures import DepthRange, needs_of, resized, scene_pictures
from .sheets import Picture, contact_sheet
from .sources import Source


@dataclass
class Drawing:
    """How a latent is drawn: ``what`` of it, ``samples`` coarse and as many fine ones a ray, at which ``resolution`` of
    the volume rendering; None is the backbone's own. No random number is drawn for rays.
    """

    what: Sequence[str] = ("image",)
    samples: int | None = None
    resolution: int | None = None
    depth_range: DepthRange | None = None

    @torch.no_grad()
    def pictures(self, source: Source, latents: Latents, camera: Camera, streams: Streams) -> list[Picture]:
        """Draw one sample from one camera: a picture for each of ``what``, enlarged to the side of the largest."""
        needs = needs_of(list(self.what), source.backbone)
        sampling = Sampling("deterministic", self.samples, self.samples)
        scene = source.backbone.render(latents, camera, needs, streams=streams, resolution=self.resolution, sampling=sampling)
        drawn = [scene_pictures(scene, what, self.depth_range)[0] for what in self.what]
        side = max(picture.shape[0] for picture in drawn)
        return [resized(picture, side) for picture in drawn]


def sample_strips(
    source: Source,
    seeds: Sequence[int],
    *,
    yaw: Sequence[float] = (0.0,),
    pitch: Sequence[float] = (0.0,),
    drawing: Drawing | None = None,
    truncation: float = 1.0,
    official: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[list[Picture]]:
    """Draw the samples one after the other: a strip of pictures each, for every pitch and yaw whatever is asked for.

    All pictures of one strip are of one shape: what views share (planes and their noise) is made once. ``progress`` is
    told the number of views that are done, and of all.
    """
    drawing = drawing or Drawing()
    poses, done = [(y, p) for p, y in product(pitch, yaw)], 0
    for seed in seeds:
        streams = source.streams([seed])
        with torch.no_grad():
            latents = source.backbone.materialise(source.latents([seed], truncation=truncation, official=official), streams)
        strip = []
        for y, p in poses:
            strip += drawing.pictures(source, latents, source.camera([y], [p]), streams)
            done += 1
            if progress is not None:
                progress(done, len(seeds) * len(poses))
        yield strip


def grid_of_strips(strips: Sequence[Sequence[Picture]], grid: tuple[int, int] | None = None) -> Picture:
    """Lay strips out in ``grid`` rows and columns of strips.

    None lays single pictures out in a square and longer strips below one another. Raises PriorzooError for a grid that
    does not hold them.
    """
    count = len(strips)
    if grid is None:
        columns = math.ceil(math.sqrt(count)) if count and len(strips[0]) == 1 else 1
        grid = (math.ceil(count / columns), columns)
    _, columns = check_grid(grid, count)
    return contact_sheet([[p for strip in strips[i : i + columns] for p in strip] for i in range(0, count, columns)])


def contact_of(strips: Iterable[list[Picture]], grid: tuple[int, int] | None, separate: bool) -> Iterator[Picture]:
    """The picture of all strips, or, where they are to be ``separate``, that of each as soon as it is drawn."""
    if separate:
        yield from (grid_of_strips([strip]) for strip in strips)
    else:
        yield grid_of_strips(list(strips), grid)


def picture_targets(out: Path, seeds: Sequence[int], separate: bool) -> list[Path]:
    """The files that are written: ``out``, or one in the folder ``out`` for each seed. Raises PriorzooError for another ending.

    >>> picture_targets(Path("heads"), [3], True)[0].as_posix()
    'heads/seed0003.png'
    """
    if separate:
        folder = out.with_suffix("") if out.suffix.lower() == ".png" else out
        return [folder / f"seed{seed:04d}.png" for seed in seeds]
    if out.suffix.lower() != ".png":
        raise PriorzooError(f"--out {out}: the picture is written as .png; a folder goes with --separate")
    return [out]


def check_grid(grid: tuple[int, int], count: int) -> tuple[int, int]:
    """Return a grid of rows and columns that holds ``count`` seeds; raises PriorzooError for one that does not."""
    rows, columns = grid
    if rows * columns < count:
        raise PriorzooError(f"--grid {rows}x{columns} has {rows * columns} places for {count} seeds")
    return grid


def parse_grid(text: str) -> tuple[int, int]:
    """Read rows and columns.

    >>> parse_grid("2x4")
    (2, 4)
    """
    rows, cross, columns = text.lower().partition("x")
    if not cross or not rows.isdecimal() or not columns.isdecimal() or int(rows) < 1 or int(columns) < 1:
        raise PriorzooError(f"--grid {text!r}: expected rows x columns, such as 4x4")
    return int(rows), int(columns)
