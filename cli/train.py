"""``priorzoo train``: train a recipe into a run folder, or continue a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    recipe: Annotated[str, typer.Argument(help="Shipped recipe, path of a YAML file, NAME@variant, or (with --resume) a run folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: training.batch=4 priors.skin.weight=50")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder. [default: runs/<recipe>]")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Variant of the recipe.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")] = False,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Resume although the recipe has changed.")] = False,
    data_folder: Annotated[Path | None, typer.Option("--data", help="Where generated heads are kept. [default: the run]")] = None,
) -> None:
    """Train a recipe. A run folder holds everything; a killed run continues with --resume as if it had never stopped."""
    from ..core.recipe import load_recipe
    from ..export.monitors import default_monitors
    from ..training.trainer import train

    changes = tuple(overrides or ())
    as_run = Path(recipe)
    if resume and out is None and (as_run / "recipe.yaml").is_file():
        out, source = as_run, str((as_run / "recipe.yaml").resolve())
    else:
        source = recipe
    loaded = load_recipe(source, changes, variant=variant)
    if out is None:
        name, _, named_variant = recipe.partition("@")
        chosen = variant or named_variant
        out = Path("runs") / "-".join([Path(name).with_suffix("").name, *([chosen] if chosen else [])])
    run = train(
        loaded,
        out,
        resume=resume,
        allow_changes=allow_changes,
        data_folder=data_folder,
        monitors=default_monitors(loaded),
    )
    typer.echo(f"{run.folder}: {run.images} images seen; weights in {run.weights}")
