"""`priorzoo mesh`: the shapes of samples as meshes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from .source_options import Device, Force, OfficialLatents, Radius, Seeds, SourcePlace, Truncation


def command(
    source: SourcePlace,
    out: Annotated[Path, typer.Option("--out", help="A file (.glb, .ply, .obj, .mrc), or a folder for a file a seed.")] = Path("meshes"),
    seeds: Seeds = "0",
    form: Annotated[
        str | None, typer.Option("--format", help="glb, ply, obj, or mrc (the field itself).", show_default="glb, or the ending of --out")
    ] = None,
    resolution: Annotated[
        int, typer.Option("--resolution", min=4, max=1024, help="Points of the grid along a side of the field's cube.")
    ] = 256,
    level: Annotated[
        str | None,
        typer.Option(
            "--level", help="opacity:O, density:D, raw:R (published: raw:10), distance:D.", show_default="opacity:0.5, or distance:0"
        ),
    ] = None,
    cut: Annotated[
        str, typer.Option("--cut", help="Share of the side that is emptied at every face first; published: 30/256, as EG3D's script does.")
    ] = "0",
    open_: Annotated[bool, typer.Option("--open", help="Leave the mesh open where the cube cuts it, instead of capping it.")] = False,
    largest: Annotated[bool, typer.Option("--largest-component", help="Keep the component of the largest area alone.")] = False,
    picture: Annotated[bool, typer.Option("--picture", help="Write a .png of the mesh too: front, three quarters, side.")] = False,
    chunk: Annotated[
        int | None, typer.Option("--chunk", min=1, help="Points queried together: bounds memory.", show_default="131072")
    ] = None,
    truncation: Truncation = 1.0,
    official_latents: OfficialLatents = False,
    radius: Radius = None,
    device: Device = "cpu",
    force: Force = False,
) -> None:
    """Extract meshes with vertex colours, and say whether they are whole."""
    from ..core.output_paths import require_free
    from ..export.mesh_export import MeshExport, export_mesh, mesh_targets, parse_cut
    from ..export.sources import Source, parse_seeds
    from ..shapes.mesh_extraction import CHUNK
    from ..shapes.mesh_levels import Level
    from ..training.progress import part_bars

    numbers = parse_seeds(seeds)
    targets, chosen = mesh_targets(out, numbers, form)
    how = MeshExport(
        chosen, resolution, None if level is None else Level.parse(level), closed=not open_, cut=parse_cut(cut), largest=largest,
        picture=picture, chunk=chunk or CHUNK,
    )  # fmt: skip
    require_free([file for target in targets for file in how.files(target)], force)
    opened = Source.open(source, radius=radius, device=device)
    for seed, target in zip(numbers, targets, strict=True):
        with part_bars(f"seed {seed}") as bar:
            progress = partial(bar, "field")
            done = export_mesh(opened, seed, target, how, truncation=truncation, official=official_latents, progress=progress)
        typer.echo(str(done.files[0]))
        if done.report is not None and done.found is not None:
            kept = f" (the largest of {done.found.components} components)" if largest else ""
            typer.echo(f"  {done.report.line()}{kept}")
