"""``priorzoo plan``: what a recipe's training needs and takes, measured by a few steps of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .process_options import Devices, Nodes, process_changes

if TYPE_CHECKING:
    from ..training.planning import Plan


def command(
    recipe: Annotated[str, typer.Argument(help="Shipped recipe, path of a YAML file, or NAME@variant.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: training.precision=bf16-mixed")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="Variant of the recipe.")] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="What one device has, such as 24GB or 24GiB.")] = None,
    devices: Devices = None,
    nodes: Nodes = None,
    out: Annotated[Path | None, typer.Option("--out", help="Also write the figures to this JSON file.")] = None,
) -> None:
    """Measure a few steps of one and two images here, and say what fits and how long it takes. Missing files get stand-ins."""
    from ..core.files import write_text_atomically
    from ..core.output_paths import require_writable
    from ..core.recipe import load_recipe
    from ..training.planning import plan, read_memory

    if out is not None:
        require_writable(out)
    room = None if memory is None else read_memory(memory)
    changes = (*process_changes(devices, nodes), *(overrides or ()))
    made = plan(load_recipe(recipe, changes, variant, check_files=False), say=lambda line: typer.echo(f"plan: {line}"))
    print_plan(made, room)
    if out is not None:
        write_text_atomically(out, json.dumps(figures(made, room), indent=1) + "\n")


def figures(plan: Plan, memory: int | None) -> dict[str, Any]:
    """Return the plan as a mapping for JSON."""
    from ..training.planning import held_bytes
    from ..training.run import circumstances

    first, last = plan.probes[0], plan.probes[-1]
    out = {
        "parameters": first.parameters,
        "held_bytes": held_bytes(first.parameters),
        "peak_bytes": {str(p.micro_batch): p.peak for p in plan.probes},
        "bytes_per_sample": plan.each,
        "seconds_per_kimg": last.clock().seconds_for(1000),
        "tflop_per_kimg": first.flops_for(1000) / 1e12,
        "seconds_in_all": last.clock().seconds_for(plan.images) / plan.devices,
        "batch": plan.batch, "images": plan.images, "devices": plan.devices, "device": first.device, **circumstances(),
    }  # fmt: skip
    if memory is not None:
        out |= {"memory": memory, "micro_batch": plan.micro_batch(memory), "warnings": plan.warnings(memory)}
    return out


def print_plan(plan: Plan, memory: int | None) -> None:
    """Print parameters, memory, time and what follows."""
    from rich.console import Console
    from rich.table import Table

    from ..training.phase_clock import duration
    from ..training.planning import held_bytes, shown_bytes, shown_operations

    first, last = plan.probes[0], plan.probes[-1]
    parts = Table("part", "parameters")
    parts.columns[1].justify = "right"
    for name, count in first.parameters.items():
        parts.add_row(name, f"{count:,}")
    parts.add_section()
    parts.add_row("sum", f"{sum(first.parameters.values()):,}")
    Console().print(parts)
    typer.echo(f"weights, averages, gradients and optimisers: {shown_bytes(held_bytes(first.parameters))}")
    measured = ", ".join(f"{shown_bytes(p.peak)} at {p.micro_batch}" for p in plan.probes)
    typer.echo(f"peak memory by micro-batch, measured on {first.device}: {measured}; each further sample {shown_bytes(plan.each)}")
    if first.device == "cpu":
        typer.echo("on a CPU that is the memory of the whole process: the interpreter and its libraries are in it")
    typer.echo(f"arithmetic: {shown_operations(first.flops_for(1000))} for 1,000 images (products and convolutions)")
    kimg, total = last.clock().seconds_for(1000), last.clock().seconds_for(plan.images)
    typer.echo(f"time, measured on one {first.device} device here: {duration(kimg)} for 1,000 images")
    several = f" on {plan.devices} such devices at best" if plan.devices > 1 else ""
    typer.echo(f"the recipe's {plan.images:,} images: {duration(total / plan.devices)}{several}")
    share = f"batch {plan.batch} over {plan.devices} device{'s' * (plan.devices > 1)}: {plan.share} images each"
    if memory is None:
        typer.echo(f"{share}; --memory 24GB would say which micro-batch fits")
        return
    fits = plan.micro_batch(memory)
    if fits:
        several = f"{plan.accumulated(fits)} of them one after the other" if plan.accumulated(fits) > 1 else "all at once"
        typer.echo(f"{share}; in {shown_bytes(memory)} fits training.micro_batch={fits} ({shown_bytes(plan.peak(fits))}), {several}")
    for warning in plan.warnings(memory):
        typer.echo(f"warning: {warning}")
