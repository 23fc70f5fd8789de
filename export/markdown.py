"""A committed result, of an ablation or over seeds, as a Markdown table: the numbers of the documents come from here alone."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.files import write_text_atomically
from ..metrics.columns import COLUMNS, HIGHER, TRUE
from .measures import TABLE_COLUMNS, number

SEEDS_COLUMNS = ("truth_iou", "segmented_iou", "truth_depth", "truth_normal_skin", "truth_normal_eyes", "sr_skin", "fd_heads")
BEGIN, END = "<!-- results: {file} -->", "<!-- end of results -->"


def results_table(results: Mapping[str, Any]) -> str:
    """Return the short table: one row a model, below each value its paired difference to the control with a 95 % interval."""
    rows = results["rows"]
    switches = list(rows[0]["switches"])
    keys = [key for key in TABLE_COLUMNS if any(key in row["columns"] for row in rows)]
    heading = ["model", *switches, *(_heading(key) for key in keys)]
    lines = [_line(heading), _line(["---"] * len(heading))]
    for row in rows:
        name = row["name"] + (" (control)" if row["name"] == results["control"] else "")
        marks = ["x" if row["switches"][switch] else "" for switch in switches]
        lines.append(_line([name, *marks, *(_cell(row["columns"].get(key)) for key in keys)]))
    true = [_true(rows, key) for key in keys]
    lines.append(_line(["true heads", *[""] * len(switches), *true]))
    return "\n".join(lines)


def seeds_table(results: Mapping[str, Any]) -> str:
    """Return the short table of a comparison over seeds: one row a recipe, below each mean its difference to the control, by seed."""
    rows = results["rows"]
    keys = [key for key in SEEDS_COLUMNS if key in rows[0]["columns"]]
    heading = ["recipe", "seeds", *(_heading(key) for key in keys)]
    lines = [_line(heading), _line(["---"] * len(heading))]
    for row in rows:
        name = row["name"] + (" (control)" if row["name"] == results["control"] else "")
        lines.append(_line([name, str(len(row["seeds"])), *(_cell(row["columns"].get(key)) for key in keys)]))
    true = [number(results["true"][key]["value"]) if key in results["true"] else "" for key in keys]
    lines.append(_line(["true heads", "", *true]))
    return "\n".join(lines)


def results_source(results: Mapping[str, Any]) -> str:
    """Return where the numbers were made: command, commit, hardware, time."""
    about = results["circumstances"]
    hardware = about["hardware"]
    source = (
        f"`{about['command']}`, commit {about['commit']}, {hardware['cores']} cores of an {hardware['processor']} processor, "
        f"torch {about['torch']}"
    )
    if "seconds" not in results["rows"][0]:
        return f"{source}."
    return f"{source}; {sum(float(row['seconds']) for row in results['rows']):.0f} s of training in all."


def results_block(path: Path, shown_as: str) -> str:
    """Return the block that a document holds between its markers for a results file."""
    results = json.loads(path.read_text(encoding="utf-8"))
    table = seeds_table(results) if "over seeds" in results.get("kind", "") else results_table(results)
    return "\n".join([BEGIN.format(file=shown_as), table, "", f"Made by {results_source(results)}", END])


def _heading(key: str) -> str:
    column = COLUMNS[key]
    unit = f" ({column.unit})" if column.unit else ""
    return f"{column.label}{unit} {'→ true' if column.goal == TRUE else '↑' if column.goal == HIGHER else '↓'}"


def _cell(column: Mapping[str, Any] | None) -> str:
    if column is None:
        return ""
    text = number(column["value"]["value"])
    name = "difference_of_distances_to_true" if "difference_of_distances_to_true" in column else "difference_to_control"
    difference = column.get(name)
    if difference is None or difference["low"] is None:
        return text
    low, high = (number(difference[end], signed=True) for end in ("low", "high"))
    off = "off true " if name.startswith("difference_of") else ""
    return f"{text}<br>{off}{number(difference['value'], signed=True)} [{low}, {high}]"


def _true(rows: list[Mapping[str, Any]], key: str) -> str:
    found = [row["columns"][key]["true"]["value"] for row in rows if "true" in row["columns"].get(key, {})]
    return number(found[0]) if found else ""


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def renew(document: Path) -> None:
    """Make every results block of a Markdown document anew from the files that its markers name."""
    text = document.read_text(encoding="utf-8")
    block = re.compile(r"<!-- results: (\S+) -->\n.*?<!-- end of results -->", re.DOTALL)
    # Files are named from the repository's root, wherever the document lies.
    root = Path(__file__).resolve().parent.parent
    write_text_atomically(document, block.sub(lambda found: results_block(root / found.group(1), found.group(1)), text))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        renew(Path(name))
