"""``priorzoo ablate``: train and measure every variant of a recipe, and make the table and the report."""

from __future__ import annotations

import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .process_options import process_changes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from ..export.page import Row
    from ..export.subjects import Subjects


def command(
    recipe: Annotated[str, typer.Argument(help="Recipe with variants: a shipped name or the path of a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to all variants: training.images=4000")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The ablation's folder.", show_default="runs/<recipe>")] = None,
    only: Annotated[str, typer.Option("--only", help="Some of the variants, separated by commas.")] = "",
    allow_changes: Annotated[bool, typer.Option("--allow-changes", help="Continue although the recipe has changed.")] = False,
    devices: Annotated[int | None, typer.Option("--devices", help="Devices to train and measure on.", min=1)] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html at the end.")] = True,
) -> None:
    """Train every variant from the same start, measure them and the start alike, and print the table.

    The same command continues where it was stopped: what is finished is not done again.
    """
    from rich.console import Console

    from ..core.recipe import load_recipe
    from ..core.recipe.composing import run_name
    from ..export.measures import findings, full_table, short_table
    from ..export.monitors import default_monitors
    from ..export.report import write_report
    from ..export.subjects import read_subjects
    from ..training.ablation import run_ablation
    from ..training.memory import keep_freed_memory
    from ..training.processes import launch, together
    from ..training.progress import part_bars

    # A log file has no width of its own: 80 columns would break every cell.
    console = Console(width=None if sys.stdout.isatty() else 160)
    started = time.monotonic()
    keep_freed_memory()
    loaded = load_recipe(recipe, (*(overrides or ()), *process_changes(devices)))
    folder = out or Path("runs") / run_name(recipe)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    # Other processes begin here, as copies of this command.
    fabric = launch(loaded.training)
    with together(fabric), part_bars() as measuring:
        run_ablation(
            loaded, folder, only=wanted, allow_changes=allow_changes, say=lambda line: console.print(line, markup=False),
            report=measuring, monitors=default_monitors, fabric=fabric,
        )  # fmt: skip
    if not fabric.is_global_zero:
        return
    subjects = read_subjects([folder])
    rows = subjects.rows
    print_tables(console, *full_table(rows, subjects.control))
    console.print(table("", *short_table(rows, subjects.control)))
    print_published(console, subjects)
    for finding in findings(rows, subjects.control):
        console.print(f"{finding.name} against {finding.control}", style="bold", markup=False)
        for sentence in finding.sentences():
            console.print(f"  {sentence}", markup=False)
    if report:
        console.print(f"report: {write_report([folder])}", markup=False)
    console.print(f"{time.monotonic() - started:.0f} s")


def print_published(console: Console, subjects: Subjects) -> None:
    """Print the published table beside what was measured, where the recipe has one."""
    if subjects.published is not None:
        console.print(table("Beside the published table", *subjects.published.table(subjects.rows)))
        console.print(subjects.published.caption, markup=False)


def print_tables(console: Console, headings: list[str], rows: list[Row]) -> None:
    """Print grouped rows as one table for each group."""
    starts = [index for index, row in enumerate(rows) if not row.cells] + [len(rows)]
    for start, stop in pairwise(starts):
        console.print(table(rows[start].name, headings, rows[start + 1 : stop]))


def table(title: str, headings: list[str], rows: list[Row]) -> Table:
    """A table for the terminal: differences below values, green and red where the interval excludes zero."""
    from rich.table import Table
    from rich.text import Text

    out = Table(title=title or None, title_justify="left")
    for index, heading in enumerate(headings):
        out.add_column(Text(heading), justify="left" if index == 0 else "right", no_wrap=index == 0 and not title)
    colours = {"better": "green", "worse": "red"}
    for row in rows:
        cells = []
        for cell in row.cells:
            text = Text(cell.text)
            if cell.note:
                text.append(f"\n{cell.note}", style=colours.get(cell.verdict, "dim"))
            cells.append(text)
        out.add_row(Text(row.name), *cells)
    return out
