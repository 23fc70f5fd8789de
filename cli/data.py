"""`priorzoo data`: write a heads data set, check any data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Write and check data sets in the EG3D format.", no_args_is_help=True)


@app.command("heads")
def heads(
    out: Annotated[Path, typer.Argument(help="OUT.zip; OUT.held_out.zip and OUT.truth.zip are written beside it.")],
    images: Annotated[int, typer.Option(help="Training images.")] = 2000,
    resolution: Annotated[int, typer.Option(help="Pixels a side, a power of two.")] = 64,
    background: Annotated[str, typer.Option(help="plain (white), gradient or textured.")] = "plain",
    seed: Annotated[int, typer.Option(help="Same seed and options: same bytes.")] = 0,
    accessories: Annotated[bool, typer.Option(help="Hats, glasses, earrings, necklaces.")] = False,
    wide_yaw: Annotated[float, typer.Option(help="Share of images with yaw uniform in +-1 rad; the others are N(0, 0.3).")] = 0.5,
    images_per_identity: Annotated[int, typer.Option(help="Cameras per head.")] = 2,
    held_out: Annotated[int, typer.Option(help="Identities that no training image shows.")] = 64,
    supersample: Annotated[int, typer.Option(help="Rays along one side of an edge pixel.")] = 2,
    workers: Annotated[int | None, typer.Option(help="Processes; default: all cores. The bytes do not depend on it.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
) -> None:
    """Render procedural heads with known depth, normals and labels in the EG3D data set format."""
    import os
    from functools import partial

    from ..data.heads import write_heads
    from ..training.progress import part_bars

    count = workers if workers is not None else (os.cpu_count() or 1)
    with part_bars() as report:
        files = write_heads(
            out, images, resolution, seed, background, accessories, wide_yaw, images_per_identity, held_out,
            supersample, workers=count, overwrite=overwrite, progress=partial(report, "heads"),
        )  # fmt: skip
    for path in (files.images, files.held_out, files.truth):
        if path.exists():
            typer.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(help="Data set: a zip or a folder with dataset.json.")],
    pictures: Annotated[Path | None, typer.Option(help="Folder for the two pictures; default: beside the data set.")] = None,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Write no pictures.")] = False,
) -> None:
    """Count, judge the camera labels, look for copies, and draw cameras and samples."""
    import math

    from ..data.check import check_dataset, require_sound, write_camera_plot, write_contact_sheet

    report, data = check_dataset(path)

    def degrees(spread: tuple[float, float, float, float]) -> str:
        mean, deviation, low, high = (math.degrees(v) for v in spread)
        return f"mean {mean:.1f}, deviation {deviation:.1f}, from {low:.1f} to {high:.1f} degrees"

    typer.echo(f"images      {report.images} of {report.resolution} x {report.resolution} pixels")
    typer.echo(f"cameras     {report.cameras} different")
    typer.echo(f"focal       {report.focal[0]:.4f} to {report.focal[1]:.4f} image widths")
    typer.echo(f"distance    {report.radius[0]:.3f} to {report.radius[1]:.3f} from the origin")
    typer.echo(f"yaw         {degrees(report.yaw)}")
    typer.echo(f"pitch       {degrees(report.pitch)}")
    typer.echo(f"copies      {sum(len(names) - 1 for names in report.duplicates)}")
    for remark in report.remarks:
        typer.echo(f"remark      {remark}")
    if not no_pictures:
        folder = pictures if pictures is not None else path.absolute().parent
        cameras, samples = folder / f"{path.stem}.cameras.png", folder / f"{path.stem}.samples.png"
        write_camera_plot(data, cameras)
        write_contact_sheet(data, samples)
        typer.echo(f"pictures    {cameras}  {samples}")
    require_sound(report)
    typer.echo("labels      sound")
