"""`priorzoo video`: clips of samples."""

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
    out: Annotated[Path, typer.Option("--out", help="The clip: .mp4 (needs the package av) or .gif.")] = Path("clip.mp4"),
    seeds: Seeds = "0-3",
    kind: Annotated[
        str, typer.Option("--kind", help="orbit: all seeds side by side; interpolation: one head through all seeds.")
    ] = "orbit",
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames of the whole clip, which is closed.")] = 120,
    fps: Annotated[float, typer.Option("--fps", help="Frames a second; a .gif rounds to hundredths of a second.")] = 30.0,
    path: Annotated[str, typer.Option("--path", help="Of an interpolation in w: cubic or linear.")] = "cubic",
    sway: Annotated[
        str | None,
        typer.Option("--sway", help="Half the width of the orbit: yaw,pitch in radians.", show_default="0.35,0.25; interpolation: 0,0"),
    ] = None,
    truncation: Truncation = 1.0,
    what: What = "image",
    grid: Annotated[
        str | None, typer.Option("--grid", help="Rows x columns of seeds in an orbit.", show_default="a square or a column")
    ] = None,
    official_latents: OfficialLatents = False,
    samples: Samples = None,
    resolution: RenderedAt = None,
    depth_range: DepthRange = None,
    radius: Radius = None,
    focal: Focal = None,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Make a clip: a camera that goes round heads, or heads that turn into one another."""
    from ..core.output_paths import require_free
    from ..export.buffer_pictures import parse_depth_range, parse_what
    from ..export.clips import Clip, clip_frames, parse_sway
    from ..export.samples import Drawing, check_grid, parse_grid
    from ..export.sources import Source, parse_seeds
    from ..export.video_files import check_video, save_video
    from ..training.progress import part_bars

    check_video(out, fps)
    numbers = parse_seeds(seeds)
    drawing = Drawing(parse_what(what), samples, resolution, parse_depth_range(depth_range))
    layout = None if grid is None else check_grid(parse_grid(grid), len(numbers))
    clip = Clip(kind, frames, path, parse_sway(sway), drawing, layout)
    clip.check_seeds(len(numbers))
    require_free([out], force)
    opened = Source.open(source, radius=radius, focal=focal, device=device)
    with part_bars() as bar:
        drawn = clip_frames(
            opened, clip, numbers, truncation=truncation, official=official_latents,
            progress=partial(bar, "frames"),
        )  # fmt: skip
        save_video(drawn, out, fps)
    typer.echo(str(out))
