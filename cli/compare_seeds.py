"""``priorzoo compare --over-seeds``: recipes that were trained with several seeds, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..metrics.over_seeds import Seeds


def grouped_by_recipe(runs: Sequence[str]) -> list[Seeds]:
    """Return the runs' results by recipe, the seed apart, in the order given; raises PriorzooError for a seed that comes twice."""
    from pathlib import Path

    from ..core.errors import PriorzooError
    from ..metrics.over_seeds import Seeds
    from ..metrics.protocol import Result
    from ..training.run import load_run
    from .compare import find_result

    groups: list[tuple[dict[str, Any], Seeds]] = []
    for place in runs:
        plain = load_run(place).recipe.to_plain()
        seed = plain.pop("seed")
        group = next((seeds for recipe, seeds in groups if recipe == plain), None)
        if group is None:
            name = Path(place).name
            group = Seeds(name.removesuffix(str(seed)).rstrip("-_") or name)
            groups.append((plain, group))
        if seed in group.results:
            raise PriorzooError(f"compare: {place} and another run have the same recipe and the same seed {seed}")
        group.results[seed] = Result.load(find_result(place), features=False)
    return [seeds for _, seeds in groups]


def compared(groups: Sequence[Seeds]) -> dict[str, Any]:
    """Return values by seed, means, true values and paired differences to the first recipe, as plain values."""
    from ..metrics.over_seeds import check_seeds
    from ..training.run import circumstances

    keys = check_seeds(groups)
    rows = []
    for group in groups:
        columns: dict[str, Any] = {}
        for key in keys:
            columns[key] = {"by_seed": group.values(key), "value": group.value(key).to_plain()}
            if group is not groups[0]:
                name = "difference_of_distances_to_true" if group.to_true(key) else "difference_to_control"
                columns[key][name] = group.difference(groups[0], key).to_plain()
        rows.append({"name": group.name, "seeds": sorted(group.results), "columns": columns})
    first = next(iter(groups[0].results.values()))
    true = {key: value.to_plain() for key in keys if (value := first.true_value(key)) is not None}
    about = {"kind": "priorzoo comparison over seeds", "control": groups[0].name, "circumstances": circumstances()}
    return {**about, "true": true, "rows": rows, "protocol": first.protocol}


def print_seeds(groups: Sequence[Seeds]) -> None:
    """Print one row for each column: means over seeds, and below each the paired difference to the first recipe."""
    from rich.console import Console
    from rich.table import Table

    from ..metrics.columns import COLUMNS
    from ..metrics.over_seeds import check_seeds
    from .compare import interval_cell

    keys = check_seeds(groups)
    table = Table(title=f"means over training seeds; compared to {groups[0].name}: differences paired by seed, 95 % intervals")
    table.add_column("measure")
    for group in groups:
        table.add_column(f"{group.name}\n{len(group.results)} seeds", justify="right")
    table.add_column("true heads", justify="right")
    first = next(iter(groups[0].results.values()))
    for key in keys:
        cells = []
        for group in groups:
            below = "" if group is groups[0] else "\n" + interval_cell(group.difference(groups[0], key))
            cells.append(f"{group.value(key).value:.4g}{below}")
        true = first.true_value(key)
        unit = f" ({COLUMNS[key].unit})" if COLUMNS[key].unit else ""
        table.add_row(COLUMNS[key].label + unit, *cells, "" if true is None else f"{true.value:.4g}")
    console = Console()
    console.print(table)
    console.print("Where closer to true is better, differences are those of the distances to it. A star: zero is outside.")
