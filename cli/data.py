"""`priorzoo data`: make data sets of procedural heads or of images and cameras, mirror, check and look at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..data.check import DataReport

app = typer.Typer(help="Make, mirror, check and look at data sets in the EG3D format.", no_args_is_help=True)


@app.command("heads")
def heads(
    out: Annotated[Path, typer.Argument(help="OUT.zip; OUT.held_out.zip and OUT.truth.zip are written beside it.")],
    images: Annotated[int, typer.Option(help="Training images.", min=1)] = 2000,
    resolution: Annotated[int, typer.Option(help="Pixels a side, a power of two.")] = 64,
    background: Annotated[str, typer.Option(help="plain (white), gradient or textured.")] = "plain",
    seed: Annotated[int, typer.Option(help="Same seed and options: same bytes.")] = 0,
    accessories: Annotated[bool, typer.Option(help="Hats, glasses, earrings, necklaces.")] = False,
    wide_yaw: Annotated[float, typer.Option(help="Share of images with yaw uniform in +-1 rad; the others are N(0, 0.3).")] = 0.5,
    images_per_identity: Annotated[int, typer.Option(help="Cameras per head.", min=1)] = 2,
    held_out: Annotated[int, typer.Option(help="Identities that no training image shows.", min=0)] = 64,
    supersample: Annotated[int, typer.Option(help="Rays along one side of an edge pixel.", min=1)] = 2,
    workers: Annotated[
        int | None, typer.Option(help="Processes; the bytes do not depend on how many.", min=1, show_default="all cores")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
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
            supersample, workers=count, force=force, progress=partial(report, "heads"),
        )  # fmt: skip
    for path in (files.images, files.held_out, files.truth):
        if path.exists():
            typer.echo(f"{path}  {path.stat().st_size / 1e6:.1f} MB")


@app.command("check")
def check(
    path: Annotated[Path, typer.Argument(help="Data set: a zip or a folder with dataset.json.")],
    pictures: Annotated[
        Path | None, typer.Option(help="Folder for the two pictures, which are replaced.", show_default="beside the data set")
    ] = None,
    no_pictures: Annotated[bool, typer.Option("--no-pictures", help="Write no pictures.")] = False,
) -> None:
    """Count, judge the camera labels, look for copies, and draw cameras and samples."""
    from ..data.check import check_dataset, require_sound
    from ..data.preview import write_camera_plot, write_samples_sheet

    report, data = check_dataset(path)
    _print_report(report)
    if not no_pictures:
        folder = pictures if pictures is not None else path.absolute().parent
        cameras, samples = folder / f"{path.stem}.cameras.png", folder / f"{path.stem}.samples.png"
        write_camera_plot(data, cameras)
        write_samples_sheet(data, samples)
        typer.echo(f"pictures    {cameras}  {samples}")
    require_sound(report)
    typer.echo("labels      sound")


@app.command("preview")
def preview(
    path: Annotated[Path, typer.Argument(help="Data set: a zip or a folder with dataset.json.")],
    out: Annotated[Path, typer.Argument(help="OUT.png")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.png.")] = False,
) -> None:
    """Draw samples with the world's axes and where the cameras stand: a wrong convention shows at a glance."""
    from ..data.check import check_dataset
    from ..data.eg3d_format import check_out
    from ..data.preview import write_preview

    check_out(out, force, ".png", path)
    report, data = check_dataset(path)
    _print_report(report)
    for problem in report.problems:
        typer.echo(f"problem     {problem}")
    write_preview(data, out)
    typer.echo(f"picture     {out}")


@app.command("pack")
def pack(
    images: Annotated[Path, typer.Argument(help="Folder or zip of png, jpg or webp.")],
    cameras: Annotated[
        Path,
        typer.Argument(help="EG3D's dataset.json (or a set with one), a COLMAP folder, transforms.json, or Deep3DFaceRecon's poses."),
    ],
    out: Annotated[Path, typer.Argument(help="OUT.zip")],
    cameras_format: Annotated[str, typer.Option(help="auto, eg3d, colmap, nerf or deep3d.")] = "auto",
    crop: Annotated[
        str, typer.Option(help="none (refuses what is not square), centre, or the side in pixels of a centred square.")
    ] = "none",
    resolution: Annotated[int | None, typer.Option(help="Pixels a side, a power of two.", show_default="that of the images")] = None,
    alpha: Annotated[str, typer.Option(help="What stands behind transparent pixels: refuse, white or black.")] = "refuse",
    unmatched: Annotated[str, typer.Option(help="Images without camera and cameras without image: refuse or skip.")] = "refuse",
    orient: Annotated[str, typer.Option(help="keep; z_up: z is up, -y the front; cameras: up and front are the cameras' mean.")] = "keep",
    normalise: Annotated[
        str,
        typer.Option(
            help="none; sphere: the optical axes' closest point is the origin, the mean distance RADIUS;"
            " radius: every camera moved to RADIUS; aim: to RADIUS, looking at the origin."
        ),
    ] = "none",
    centre: Annotated[str | None, typer.Option(help="X,Y,Z in the scene's coordinates: becomes the origin.")] = None,
    scale: Annotated[float | None, typer.Option(help="World units in one of the scene's.")] = None,
    radius: Annotated[float, typer.Option(help="Distance of the cameras in world units.")] = 2.7,
    focal: Annotated[float, typer.Option(help="deep3d: focal length in widths of the packed image.")] = 4.2647,
    aim: Annotated[str, typer.Option(help="origin (refuses cameras that do not see the origin) or any.")] = "origin",
    workers: Annotated[
        int | None, typer.Option(help="Threads; the bytes do not depend on how many.", min=1, show_default="all cores")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.zip.")] = False,
) -> None:
    """Make a data set of images and cameras: checked, cut, resized, brought into the world of the labels."""
    import os
    from functools import partial

    from ..data.pack import PackOptions
    from ..data.pack import pack as write_pack
    from ..training.progress import part_bars

    options = PackOptions(
        cameras_format, _crop(crop), resolution, alpha, unmatched, orient, normalise, _point(centre), scale, radius, focal, aim
    )
    with part_bars() as show:
        report = write_pack(
            images, cameras, out, options, force=force, workers=workers or os.cpu_count() or 1, progress=partial(show, "pack")
        )
    typer.echo(f"{out}  {report.images} images of {report.resolution} x {report.resolution}, {out.stat().st_size / 1e6:.1f} MB")
    typer.echo(f"cameras     {report.cameras_format}; {_world_line(report.world)}")
    if report.left_out:
        typer.echo(f"left out    {report.left_out} images without a camera")
    if report.enlarged:
        typer.echo(f"remark      {report.enlarged} images were smaller than {report.resolution} pixels and were enlarged")
    typer.echo(f"next        priorzoo data preview {out} {out.with_suffix('.png')}")


@app.command("mirror")
def mirror(
    source: Annotated[Path, typer.Argument(help="IN: a data set, zip or folder.")],
    out: Annotated[Path, typer.Argument(help="OUT.zip")],
    force: Annotated[bool, typer.Option("--force", help="Replace OUT.zip.")] = False,
) -> None:
    """Add every image's mirror image with the mirrored camera."""
    from functools import partial

    from ..data.mirror import mirror as write_mirror
    from ..training.progress import part_bars

    with part_bars() as show:
        count = write_mirror(source, out, force=force, progress=partial(show, "mirror"))
    typer.echo(f"{out}  {count} images, {out.stat().st_size / 1e6:.1f} MB")
    if source.with_suffix(".truth.zip").exists():
        typer.echo(f"remark      {source.with_suffix('.truth.zip')} is true of the original images only")


def _crop(text: str) -> str | int:
    return int(text) if text.isdecimal() else text


def _point(text: str | None) -> tuple[float, float, float] | None:
    from ..core.errors import DataError

    if text is None:
        return None
    try:
        x, y, z = (float(word) for word in text.split(","))
    except ValueError as error:
        raise DataError(f"--centre: expected three numbers X,Y,Z, got {text!r}") from error
    return x, y, z


def _world_line(world: dict[str, Any]) -> str:
    x, y, z = world["centre"]
    turned = "turned, " if world["rotation"] != [[1, 0, 0], [0, 1, 0], [0, 0, 1]] else ""
    return f"{turned}centre {x:.4g}, {y:.4g}, {z:.4g}, scale {world['scale']:.4g}"


def _print_report(report: DataReport) -> None:
    import math

    def degrees(spread: tuple[float, float, float, float]) -> str:
        mean, deviation, low, high = (math.degrees(v) for v in spread)
        return f"mean {mean:.1f}, deviation {deviation:.1f}, from {low:.1f} to {high:.1f} degrees"

    mirrored = f", {report.mirrored} of them mirror images" if report.mirrored else ""
    typer.echo(f"images      {report.images} of {report.resolution} x {report.resolution} pixels{mirrored}")
    if {"rotation", "centre", "scale"} <= set(report.about.get("world", ())):
        typer.echo(
            f"packed      from {report.about.get('cameras_format')}, crop {report.about.get('crop')}; {_world_line(report.about['world'])}"
        )
    typer.echo(f"cameras     {report.cameras} different")
    typer.echo(f"focal       {report.focal[0]:.4f} to {report.focal[1]:.4f} image widths")
    typer.echo(f"view        {degrees(report.field_of_view)}, horizontally")
    typer.echo(f"distance    {report.radius[0]:.3f} to {report.radius[1]:.3f} from the origin")
    typer.echo(f"yaw         {degrees(report.yaw)}")
    typer.echo(f"pitch       {degrees(report.pitch)}")
    typer.echo(f"copies      {sum(len(names) - 1 for names in report.duplicates)}")
    for remark in report.remarks:
        typer.echo(f"remark      {remark}")
