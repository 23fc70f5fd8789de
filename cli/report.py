"""``priorzoo report``: a self-contained HTML page on runs or an ablation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    runs: Annotated[
        list[str],
        typer.Argument(help="Runs, checkpoints or shipped weights (the first is the reference), or one ablation folder."),
    ],
    out: Annotated[Path | None, typer.Option("--out", help="The page.", show_default="report.html in the first folder")] = None,
    heads: Annotated[int, typer.Option("--heads", min=1, help="Latents drawn side by side.")] = 4,
    resolution: Annotated[int, typer.Option("--resolution", min=16, help="Side of their pictures in pixels.")] = 96,
) -> None:
    """Write a self-contained HTML report: table, measures, curves, and the same heads side by side."""
    from ..export.report import write_report
    from ..training.memory import keep_freed_memory

    keep_freed_memory()
    typer.echo(str(write_report(runs, out, heads=heads, resolution=resolution)))
