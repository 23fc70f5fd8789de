"""`priorzoo sample`: samples as pictures."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .source_options import (
    DepthRange,
    Device,
    Focal,
    Force,
    OfficialLatents,
    Radius,
    RenderedAt,
    Samples,
    Seeds,
    SourcePlace,
    Truncation,
    What,
)


def command(
    source: SourcePlace,
    out: Annotated[Path, typer.Option("--out", help="The .png file; with --separate the folder.")] = Path("samples.png"),
    seeds: Seeds = "0-15",
    truncation: Truncation = 1.0,
    yaw: Annotated[str, typer.Option("--yaw", help="Poses: yaws in radians, with commas; + moves the camera to +x.")] = "0",
    pitch: Annotated[str, typer.Option("--pitch", help="Poses: pitches in radians, with commas; + moves the camera up.")] = "0",
    what: What = "image",
    grid: Annotated[
        str | None,
        typer.Option("--grid", help="Rows x columns of seeds.", show_default="a square; one seed a row where each has several pictures"),
    ] = None,
    separate: Annotated[bool, typer.Option("--separate", help="One file a seed in the folder --out: seed0000.png, ...")] = False,
    official_latents: OfficialLatents = False,
    samples: Samples = None,
    resolution: RenderedAt = None,
    depth_range: DepthRange = None,
    radius: Radius = None,
    focal: Focal = None,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Draw samples as one picture: seeds, poses, and what of each."""
    from ..core.files import write_atomically
    from ..core.output_paths import require_free
    from ..export.buffer_pictures import parse_depth_range, parse_what
    from ..export.samples import Drawing, check_grid, contact_of, parse_grid, picture_targets, sample_strips
    from ..export.sheets import png_bytes
    from ..export.sources import Source, parse_numbers, parse_seeds
    from ..training.progress import part_bars

    numbers = parse_seeds(seeds)
    targets = picture_targets(out, numbers, separate)
    layout = None if grid is None else check_grid(parse_grid(grid), 1 if separate else len(numbers))
    drawing = Drawing(parse_what(what), samples, resolution, parse_depth_range(depth_range))
    yaws, pitches = parse_numbers(yaw, "--yaw"), parse_numbers(pitch, "--pitch")
    require_free(targets, force)
    opened = Source.open(source, radius=radius, focal=focal, device=device)
    with part_bars() as bar:
        strips = sample_strips(
            opened, numbers, yaw=yaws, pitch=pitches, drawing=drawing, truncation=truncation, official=official_latents,
            progress=partial(bar, "samples"),
        )  # fmt: skip
        for target, picture in zip(targets, contact_of(strips, layout, separate), strict=True):
            with write_atomically(target) as beside:
                beside.write_bytes(png_bytes(picture))
    typer.echo(str(out))
