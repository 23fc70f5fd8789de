"""``priorzoo train``: train a recipe into a run folder, continue a run, or try the whole of it for two steps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .process_options import Devices, Nodes, process_changes

if TYPE_CHECKING:
    from ..training.dry_run import DryRun


def command(
    recipe: Annotated[str, typer.Argument(help="Shipped recipe, path of a YAML file, NAME@variant, or (with --resume) a run folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: training.batch=4 priors.skin.weight=50")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run folder.", show_default="runs/<recipe>")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Variant of the recipe.")] = None,
    devices: Devices = None,
    nodes: Nodes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the newest checkpoint.")] = False,
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Resume although the recipe has changed.")] = False,
    data_folder: Annotated[Path | None, typer.Option("--data", help="Where generated heads are kept.", show_default="the run")] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Two steps of two images at full size, then nothing is left; missing files get stand-ins.")
    ] = False,
) -> None:
    """Train a recipe. A run folder holds everything; a killed run continues with --resume as if it had never stopped."""
    from ..core.recipe import load_recipe

    changes = (*process_changes(devices, nodes), *(overrides or ()))
    if dry:
        _require_none({"--devices": devices, "--nodes": nodes, "--resume": resume, "--allow-changes": allow_changes, "--data": data_folder})
        try_out(recipe, tuple(overrides or ()), variant, out)
        return
    from ..core.recipe.composing import run_name
    from ..export.monitors import default_monitors
    from ..training.processes import is_first
    from ..training.trainer import train

    as_run = Path(recipe)
    if resume and out is None and (as_run / "recipe.yaml").is_file():
        out, source = as_run, str((as_run / "recipe.yaml").resolve())
    else:
        source = recipe
    loaded = load_recipe(source, changes, variant=variant)
    run = train(
        loaded,
        out or Path("runs") / run_name(recipe, variant),
        resume=resume,
        allow_changes=allow_changes,
        data_folder=data_folder,
        monitors=default_monitors(loaded),
    )
    if is_first():
        typer.echo(f"{run.folder}: {run.images} images seen; weights in {run.weights}")


def _require_none(flags: dict[str, object]) -> None:
    from ..core.errors import PriorzooError

    given = [name for name, value in flags.items() if value not in (None, False)]
    if given:
        raise PriorzooError(f"train --dry-run: {', '.join(given)} does not apply: it begins anew, on one process, in a folder of its own")


def try_out(source: str, overrides: tuple[str, ...], variant: str | None, out: Path | None) -> None:
    """Dry-run a recipe in a temporary folder, or in ``out``, which is kept, and print what was found."""
    import tempfile
    from contextlib import nullcontext

    from ..core.errors import RunError
    from ..core.output_paths import require_writable
    from ..core.recipe import load_recipe
    from ..training.dry_run import SMALL_BATCH, dry_run

    if out is not None:
        require_writable(out / "dry_run.json")
    if out is not None and out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: a dry run needs a folder that is empty or not there yet")
    # The caller's overrides come after the small batch and win, but for the number of processes.
    small = load_recipe(source, (*SMALL_BATCH, *overrides, *process_changes(1, 1)), variant, check_files=False)
    with tempfile.TemporaryDirectory(prefix="priorzoo-dry-run-") if out is None else nullcontext(str(out)) as folder:
        typer.echo("dry run: on one process, whatever training.devices and training.nodes say")
        found = dry_run(small, Path(folder), say=lambda line: typer.echo(f"dry run: {line}"))
    print_dry_run(found)


def print_dry_run(found: DryRun) -> None:
    """Print parameters, the terms of the first step, seconds by phase and peak memory."""
    from rich.console import Console
    from rich.table import Table

    from ..training.planning import shown_bytes

    console = Console()
    parts = Table("part", "parameters")
    terms = Table("term of the generator's loss", "value", "weight", "pixels", "norm of its gradient", title="first step")
    phases = Table("phase", "every", "seconds", title=f"a step of {found.clock.batch} images")
    for table in (parts, terms, phases):
        for column in table.columns[1:]:
            column.justify = "right"
    for name, count in found.parameters.items():
        parts.add_row(name, f"{count:,}")
    for name, term in found.terms.items():
        pixels = "" if term.pixels is None else f"{term.pixels:,}"
        terms.add_row(name, f"{term.value:.4g}", f"{term.weight:g}", pixels, f"{term.gradient:.4g}")
    for name, seconds in found.clock.seconds.items():
        phases.add_row(name, str(found.clock.intervals[name]), f"{seconds:.2f}")
    for table in (parts, terms, phases):
        console.print(table)
    blind = [name for name, term in found.terms.items() if term.pixels == 0]
    if blind:
        typer.echo(f"saw no pixel in these images: {', '.join(blind)}")
    typer.echo(f"peak memory {shown_bytes(found.peak_memory)} while the steps ran")
    typer.echo("first steps are slow ones: `priorzoo plan` measures how long the training takes")
