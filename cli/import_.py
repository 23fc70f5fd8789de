"""`priorzoo import`: an official checkpoint, read without running anything in it, as safetensors and a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..training.foreign import Foreign


def command(
    source: Annotated[Path, typer.Argument(help="An official EG3D or BallGAN checkpoint (.pkl).")],
    out: Annotated[Path, typer.Argument(help="The folder for model.safetensors and card.json.")],
    verbose: Annotated[bool, typer.Option("--verbose", help="Print matched names too, one a line.")] = False,
) -> None:
    """Read an official checkpoint inertly and write it as safetensors and a card; every verb that takes a run takes the folder."""
    from ..core.errors import CheckpointError
    from ..training.foreign import import_checkpoint

    try:
        foreign = import_checkpoint(source, out)
    except CheckpointError as error:
        if source.exists() and not begins_as_pickle(source):
            raise CheckpointError(f"{error}; an official EG3D or BallGAN .pkl is expected") from error
        raise
    print_names(foreign, verbose)
    options = foreign.checkpoint.options
    typer.echo(
        f"{foreign.recipe.backbone.name}: {options['image_resolution']} pixels a side, neural resolution {options['neural_resolution']}, "
        f"super-resolution {options['superresolution']}, plane_axes {options['plane_axes']}"
    )
    for note in foreign.checkpoint.notes:
        typer.echo(f"note: {note}")
    typer.echo(str(out))


def begins_as_pickle(path: Path) -> bool:
    """Whether the first byte is that of a pickle, its opcode PROTO."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def print_names(foreign: Foreign, verbose: bool) -> None:
    """Print, for each part, how many names matched and every name that did not."""
    from ..training.foreign import UNUSED

    for part, names in foreign.names.items():
        typer.echo(f"{part}: {len(names.matched)} matched, {len(names.missing)} missing, {len(names.unexpected)} unexpected")
        if verbose:
            for name in names.matched:
                typer.echo(f"  matched: {name}")
        for name in names.missing:
            typer.echo(f"  missing: {name}")
        for name in names.unexpected:
            typer.echo(f"  unexpected: {name} (no network reads it; kept as {UNUSED}.{part}.{name})")
        dropped = foreign.checkpoint.dropped.get(part, [])
        if dropped:
            typer.echo(f"  dropped: {len(dropped)} filters of layers that resample nothing: {', '.join(dropped)}")
