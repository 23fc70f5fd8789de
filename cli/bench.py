"""``priorzoo bench step``: the share of a training step by part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

PRIORS = ("prior ", "segmenter", "estimator", "second view")

app = typer.Typer(help="Measure the speed and memory of a training step.", no_args_is_help=True)


@app.callback()
def _bench() -> None:
    """Measure speed and memory."""


@app.command()
def step(
    recipe: Annotated[str, typer.Argument(help="Shipped recipe or path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: training.batch=4")] = None,
    repeats: Annotated[int, typer.Option("--repeats", help="Cycles of the lazy phases that are timed.", min=1)] = 1,
    data_folder: Annotated[Path, typer.Option("--data", help="Where generated heads are kept.")] = Path("runs/bench-data"),
    out: Annotated[Path | None, typer.Option("--out", help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Show what each part of a step costs, images a second and peak memory."""
    from rich.console import Console
    from rich.table import Table

    from ..core.files import write_text_atomically
    from ..core.output_paths import require_writable
    from ..core.recipe import load_recipe
    from ..training.benchmark import step_cost

    if out is not None:
        require_writable(out)
    cost = step_cost(load_recipe(recipe, tuple(overrides or ())), data_folder=data_folder, repeats=repeats, progress=True)
    table = Table(title=f"a step of {recipe}, batch {cost.batch}: mean of {cost.steps}, forward and backward")
    for heading in ("part", "ms", "share"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for name, seconds in sorted(cost.parts.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{seconds * 1e3:.1f}", f"{100 * seconds / cost.timed_step:.1f} %")
    table.add_section()
    table.add_row("sum", f"{cost.timed_step * 1e3:.1f}", "100 %")
    table.add_row("step without timing its parts", f"{cost.step * 1e3:.1f}", "")
    Console().print(table)
    memory = cost.peak_memory / 2**20
    priors = 100 * cost.share(*PRIORS)
    typer.echo(f"{cost.images_per_second:.1f} images/s; peak memory {memory:.0f} MiB")
    typer.echo(f"priors with what they alone need {priors:.1f} % of the step; data {100 * cost.share('data'):.1f} %")
    if out is not None:
        write_text_atomically(out, json.dumps(cost.to_plain(), indent=1))
