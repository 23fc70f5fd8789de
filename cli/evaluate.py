"""`priorzoo evaluate`: measure images and shapes of a run, a checkpoint or shipped weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..metrics.protocol import Result

MEASURING = ("evaluation", "data", "segmenter", "estimator")


def command(
    run: Annotated[str, typer.Argument(help="A run folder, a checkpoint folder, a .safetensors file or a shipped name.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes to how it is measured, such as evaluation.images=256.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The result's .json file. [default: results/ in the run]")] = None,
    data: Annotated[Path | None, typer.Option("--data", help="Where generated heads are kept. [default: data/ in the run]")] = None,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
) -> None:
    """Measure images and shapes by the run's own recipe and write the result with its protocol."""
    from ..core.errors import PriorzooError
    from ..core.recipe.loading import load_changed
    from ..training.measuring import evaluator_for, result_path
    from ..training.memory import keep_freed_memory
    from ..training.progress import part_bars
    from ..training.run import load_run

    loaded = load_run(run)
    for change in overrides or ():
        if change.partition("=")[0].split(".")[0] not in MEASURING:
            raise PriorzooError(
                f"evaluate: {change!r} would change the model, not how it is measured; allowed are overrides of " + ", ".join(MEASURING)
            )
    recipe = load_changed(loaded.recipe, overrides or ())
    target = out or result_path(run, loaded)
    if target.suffix != ".json":
        raise PriorzooError(f"--out must name a .json file, got {target}")
    _check_device(device)
    keep_freed_memory()
    folder = data or (target.parent.parent / "data" if out is None else target.parent / "data")
    evaluator = evaluator_for(recipe, folder, device=device, progress=True)
    subject = Path(run).name or run
    with part_bars(subject) as report:
        result = evaluator(loaded.backbone(average=True), subject=subject, progress=report)
    result.save(target)
    print_result(result)
    typer.echo(str(target))


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
            f"{value.low:.4g} .. {value.high:.4g}",
            str(value.count),
            "" if true is None else f"{true.value:.4g}",
        )
    Console().print(table)


def _check_device(device: str) -> None:
    import torch

    from ..core.errors import PriorzooError

    if device.split(":")[0] not in ("cpu", "cuda"):
        raise PriorzooError(f"--device must be cpu or cuda, got {device!r}")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise PriorzooError(f"--device {device}: this machine, or this build of torch, has no CUDA device")
