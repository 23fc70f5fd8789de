"""`priorzoo compare`: the results of several runs side by side, with paired differences to the first."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..metrics.protocol import Result
    from ..metrics.statistics import Interval


def command(
    runs: Annotated[list[str], typer.Argument(help="Run folders or result files, the first being the reference; or one ablation folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    over_seeds: Annotated[
        bool, typer.Option("--over-seeds", help="Group runs whose recipes differ in the seed alone; intervals are over seeds.")
    ] = False,
) -> None:
    """Put results side by side; results of unequal protocols are refused, naming the field."""
    from ..core.errors import PriorzooError
    from ..metrics.protocol import Result, require_equal_protocols
    from ..training.ablation import is_ablation

    ablations = [run for run in runs if Path(run).is_dir() and is_ablation(run)]
    if ablations:
        if len(runs) > 1:
            raise PriorzooError(f"compare: {ablations[0]} is an ablation, which is compared alone; name its runs to mix them with others")
        _compare_ablation(runs[0], as_json)
        return
    nowhere = next((run for run in runs if not Path(run).exists()), None)
    if nowhere is not None:
        raise PriorzooError(f"{nowhere}: no such run, result file or ablation")
    if len(runs) < 2:
        raise PriorzooError(f"compare needs at least two runs, got {len(runs)}")
    if over_seeds:
        from .compare_seeds import compared, grouped_by_recipe, print_seeds

        groups = grouped_by_recipe(runs)
        if as_json:
            typer.echo(json.dumps(compared(groups), indent=1))
        else:
            print_seeds(groups)
        return
    results = [Result.load(find_result(run), features=False) for run in runs]
    _name_apart(results, runs)
    require_equal_protocols(results)
    if as_json:
        typer.echo(json.dumps(comparison(results), indent=1))
    else:
        print_comparison(results)


def _compare_ablation(folder: str, as_json: bool) -> None:
    """Compare the rows of an ablation to its control, and print the published table of its recipe beside them."""
    from rich.console import Console

    from ..core.errors import PriorzooError
    from ..export.subjects import read_subjects
    from ..metrics.protocol import require_equal_protocols
    from .ablate import print_published

    subjects = read_subjects([folder])
    rows = sorted(subjects.rows, key=lambda row: row.name != subjects.control)
    if len(rows) < 2:
        raise PriorzooError(f"{folder}: one row of this ablation has been measured yet, {rows[0].name}; there is nothing to compare it to")
    results = [row.result for row in rows]
    require_equal_protocols(results)
    if as_json:
        beside = subjects.published
        published = None if beside is None else beside.published.model_dump()
        typer.echo(json.dumps({**comparison(results), "published": published}, indent=1))
    else:
        print_comparison(results)
        print_published(Console(), subjects)


def find_result(run: str) -> Path:
    """The result file of a run folder, or the file itself; PriorzooError says how to make a missing one."""
    from ..core.errors import PriorzooError

    place = Path(run)
    if place.suffix == ".json":
        return place
    path = place / "results" / "evaluation.json"
    if not path.is_file():
        raise PriorzooError(f"{run}: no result ({path} does not exist); make it with `priorzoo evaluate {run}`")
    return path


def comparison(results: Sequence[Result]) -> dict[str, Any]:
    """Values, true values and paired differences to the first result, as plain values."""
    columns = {}
    for key in shared_columns(results):
        true = results[0].true_value(key)
        columns[key] = {
            "true": None if true is None else true.to_plain(),
            "runs": [
                {"subject": r.subject, "value": r.value(key).to_plain(), "difference": None if d is None else d.to_plain()}
                for r, d in zip(results, _differences(results, key), strict=True)
            ],
        }
    return {"protocol": results[0].protocol, "columns": columns}


def print_comparison(results: Sequence[Result]) -> None:
    """Print one row for each column: values, and below each the difference to the first result."""
    from rich.console import Console
    from rich.table import Table

    from ..metrics.columns import COLUMNS, TRUE

    table = Table(title=f"compared to {results[0].subject}: paired differences with 95 % intervals")
    table.add_column("measure")
    for result in results:
        table.add_column(result.subject, justify="right")
    table.add_column("true heads", justify="right")
    group = ""
    for key in shared_columns(results):
        column, true = COLUMNS[key], results[0].true_value(key)
        if group and column.group != group:
            table.add_section()
        group = column.group
        aim = {TRUE: "closer to true is better", "higher": "higher is better"}.get(column.goal, "lower is better")
        cells = [
            f"{r.value(key).value:.4g}" + ("" if d is None else f"\n{interval_cell(d)}")
            for r, d in zip(results, _differences(results, key), strict=True)
        ]
        unit = f" ({column.unit})" if column.unit else ""
        table.add_row(f"{column.label}{unit}\n{aim}", *cells, "" if true is None else f"{true.value:.4g}")
    console = Console()
    console.print(table)
    console.print("Where closer to true is better, differences are those of the distances to it. A star: zero is outside.")


def shared_columns(results: Sequence[Result]) -> list[str]:
    """The columns that every result has, in the order of tables."""
    return [key for key in results[0].columns() if all(key in r.terms for r in results)]


def _differences(results: Sequence[Result], key: str) -> list[Interval | None]:
    """Paired differences to the first result; of distances to the true value where the column aims at it."""
    from ..metrics.columns import COLUMNS, TRUE
    from ..metrics.protocol import paired_difference

    to_true = COLUMNS[key].goal == TRUE and results[0].has_true_value(key)
    return [None, *(paired_difference(r, results[0], key, distance=to_true) for r in results[1:])]


def interval_cell(interval: Interval) -> str:
    """A signed value with its interval, and a star where zero lies outside."""
    if interval.low != interval.low:  # NaN: a column without intervals
        return f"{interval.value:+.3g}"
    star = "*" if interval.excludes_zero else " "
    return f"{interval.value:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}]{star}"


def _name_apart(results: Sequence[Result], runs: Sequence[str]) -> None:
    """Results with one name are called by their paths."""
    names = [r.subject for r in results]
    for result, run in zip(results, runs, strict=True):
        if names.count(result.subject) > 1:
            result.subject = run
