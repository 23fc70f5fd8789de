"""`priorzoo evaluate`: measure images and shapes of a run, a checkpoint or shipped weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..core.recipe import Recipe
    from ..metrics.protocol import Result
    from ..training.run import Run

DEVICES = ("auto", "cpu", "cuda")


def command(
    run: Annotated[str, typer.Argument(help="A run or checkpoint folder, a .safetensors file, an official .pkl, or a shipped name.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to how it is measured, such as evaluation.images=256.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Take data and protocol from this recipe.", show_default="the run's")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The result's .json file.", show_default="results/ in the run")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Where generated heads are kept.", show_default="data/ in the run")] = None,
    device: Annotated[str, typer.Option("--device", help="auto (the recipe's), cpu or cuda.")] = "auto",
    devices: Annotated[
        int | None, typer.Option("--devices", help="How many share the work.", show_default="training.devices", min=1)
    ] = None,
) -> None:
    """Measure images and shapes by the run's own recipe, or by another's, and write the result with its protocol.

    The same command continues where it was stopped.
    """
    from ..core.errors import PriorzooError
    from ..core.output_paths import require_writable
    from ..training.measuring import (
        evaluator_for,
        measure_run,
        measuring_plan,
        measuring_recipe,
        result_path,
        save_result,
        unfinished_folder,
    )
    from ..training.memory import keep_freed_memory
    from ..training.processes import first_process_says, launch, together
    from ..training.progress import part_bars
    from ..training.run import load_run

    loaded = load_run(run)
    protocol = measuring_recipe(*_changed(loaded, recipe, overrides or ()), run)
    target = out or result_path(run, loaded)
    if target.suffix != ".json":
        raise PriorzooError(f"--out must name a .json file, got {target}")
    require_writable(target)
    _check_device(device)
    keep_freed_memory()
    folder = data or (target.parent.parent / "data" if out is None else target.parent / "data")
    subject = Path(run).name or run
    # Other processes begin here, as copies of this command.
    fabric = launch(measuring_plan(protocol.training, device=device, devices=devices))
    with together(fabric):
        evaluator = evaluator_for(protocol, folder, fabric=fabric, progress=True, say=_say)
        with part_bars(subject) as report:
            result = measure_run(
                loaded, folder, evaluator=evaluator, subject=subject, progress=report, kept_in=unfinished_folder(target)
            )  # fmt: skip
        first_process_says(fabric, lambda: None if result is None else save_result(result, target))
    if result is not None:
        print_result(result)
        typer.echo(str(target))


def _changed(loaded: Run, recipe: str | None, overrides: Sequence[str]) -> tuple[Run, Recipe | None]:
    """The run and the recipe that it is measured by, one of them with overrides; those that would change the model are refused.

    Of the files that a recipe names, those that measuring reads must be there: what a model starts from need not.
    """
    from ..core.errors import PriorzooError
    from ..core.recipe import load_recipe
    from ..core.recipe.loading import load_changed
    from ..core.recipe.problems import InvalidRecipe
    from ..training.measuring import MEASURING

    for change in overrides:
        if change.partition("=")[0].split(".")[0] not in MEASURING:
            raise PriorzooError(
                f"evaluate: {change!r} would change the model, not how it is measured; allowed are overrides of " + ", ".join(MEASURING)
            )
    if recipe is None:
        by = load_changed(loaded.recipe, overrides)
    else:
        by = load_recipe(recipe, tuple(overrides), check_files=False)
    missing = [problem for problem in by.missing if problem.key.split(".")[0] in MEASURING]
    if missing:
        raise InvalidRecipe(missing)
    return (replace(loaded, recipe=by), None) if recipe is None else (loaded, by)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def print_result(result: Result) -> None:
    """Print every column with its 95 % interval and the value of true heads."""
    from rich.console import Console
    from rich.table import Table

    from ..metrics.columns import COLUMNS

    table = Table(title=f"{result.subject} (95 % intervals over latents or heads)")
    for heading in ("measure", "value", "interval", "n", "true heads"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    group = ""
    for key in result.columns():
        column, value, true = COLUMNS[key], result.value(key), result.true_value(key)
        if group and column.group != group:
            table.add_section()
        group = column.group
        label = column.label + (f" ({column.unit})" if column.unit else "")
        table.add_row(
            label,
            f"{value.value:.4g}",
            f"{value.low:.4g} .. {value.high:.4g}" if value.low == value.low else "",
            str(value.count),
            "" if true is None else f"{true.value:.4g}",
        )
    Console().print(table)


def _check_device(device: str) -> None:
    import torch

    from ..core.errors import PriorzooError

    if device not in DEVICES:
        raise PriorzooError(f"--device must be one of {', '.join(DEVICES)}, got {device!r}; CUDA_VISIBLE_DEVICES chooses among several")
    if device == "cuda" and not torch.cuda.is_available():
        raise PriorzooError(f"--device {device}: this machine, or this build of torch, has no CUDA device")
