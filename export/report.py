"""The report: one self-contained HTML page on a run, several runs, or an ablation."""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..core.files import write_text_atomically
from . import page
from .curves import curves_png
from .gallery import gallery, reconstructions
from .measures import findings, full_table, meanings, short_table
from .page import Cell, Row, Section
from .parts import parts_section
from .subjects import Subject, Subjects, read_subjects

TRUER = (
    "The word “truer” rests on (a) and (c) alone: on held-out heads whose true shape is known, and on statistics beside those "
    "of true heads. (b) trusts an estimator that can be fooled, and pictures can be chosen; neither proves anything here. "
    "In (c) closer to the value of true heads is better: a surface smoother than true heads is wrong too."
)
CHANCE = (
    "Intervals are 95 % over the same latents or heads and speak of these trained models. They do not contain the chance of "
    "training: another seed would move every row. Of twenty intervals around no difference at all, one excludes zero on average."
)


def write_report(places: Sequence[str | Path], out: str | os.PathLike[str] | None = None, *, heads: int = 4, resolution: int = 96) -> Path:
    """Write the report of runs, checkpoints or one ablation folder; return its path (default: ``report.html`` in the first).

    ``heads``: latents drawn side by side; ``resolution``: side of their pictures in pixels.
    Raises RunError or PriorzooError when there is nothing to report on.
    """
    subjects = read_subjects(places)
    target = Path(out) if out is not None else _home(places[0], subjects) / "report.html"
    write_text_atomically(target, report_html(subjects, heads=heads, resolution=resolution))
    return target


def report_html(subjects: Subjects, *, heads: int = 4, resolution: int = 96) -> str:
    """Return the page: what was found, table, measures, how to read them, pictures, profile, curves, what was run."""
    rows = subjects.rows
    sections = [Section("short", "In short", _in_short(subjects))]
    if rows:
        table = page.table(*short_table(rows, subjects.control)) + _table_note(subjects) + _published(subjects)
        sections.append(Section("table", "Table", table))
    sections.append(Section("heads", "The same latents side by side", gallery(subjects, heads, resolution)))
    apart = parts_section(subjects, heads, resolution)
    if apart is not None:
        sections.append(Section("parts", "Foreground and background apart", apart))
    sections.append(Section("profile", "Depth through an eye", reconstructions(subjects)))
    if rows:
        sections.append(Section("measures", "All measures", page.table(*full_table(rows, subjects.control))))
        sections.append(Section("reading", "How to read the columns", _reading(subjects)))
    sections.append(Section("curves", "Curves", _curves(subjects)))
    sections.append(Section("run", "What was run", _what_was_run(subjects)))
    return page.page(f"priorzoo: {subjects.title}", sections)


def _in_short(subjects: Subjects) -> str:
    what = page.paragraph(_what(subjects))
    if not subjects.rows:
        return what + page.paragraph("Nothing was measured yet: `priorzoo evaluate RUN` does. What follows are pictures and curves.")
    found = findings(subjects.rows, subjects.control)
    if not found:
        lonely = "There is no second measured model to compare with: values below, no differences."
        return what + page.paragraph(lonely) + page.paragraph(TRUER, soft=True)
    blocks = [f"<h3>{escape(one.name)} against {escape(one.control)}</h3>" + page.bullets(one.sentences()) for one in found]
    return what + "".join(blocks) + page.paragraph(TRUER, soft=True)


def _what(subjects: Subjects) -> str:
    """One sentence on what was trained, from what, for how long."""
    trained = [model for model in subjects.models if not model.is_start]
    images = sorted({model.run.images for model in trained})
    text = f"{len(trained)} model{'s' if len(trained) > 1 else ''}: {', '.join(model.name for model in trained)}"
    starts = {Path(model.run.recipe.init).name for model in trained if model.run.recipe.init}
    text += f"; trained from {', '.join(sorted(starts))}" if starts else ""
    text += f" on {' or '.join(_count(number) for number in images)} images"
    seconds = [float(model.record["seconds"]) for model in trained if model.record.get("seconds")]
    return text + (f", {_duration(sum(seconds))} of training in all." if seconds else ".")


def _reading(subjects: Subjects) -> str:
    arrows = (
        "↓ lower is better, ↑ higher is better, → true: closer to the value of true heads is better, smaller is not. The value of true "
        "heads under (a) is what their own depth maps give at this resolution: the floor. Under (b) it is the estimator's own error."
    )
    blocks = [f"<h3>{escape(title)}</h3>" + page.definitions(items) for title, items in meanings(subjects.rows)]
    return page.paragraph(arrows) + "".join(blocks) + page.paragraph(CHANCE)


def _table_note(subjects: Subjects) -> str:
    text = "× marks what was on. ↓ lower is better, ↑ higher, → true: closer to the value of true heads."
    if subjects.control is not None:
        text += (
            f" Small print: difference to {subjects.control} over the same latents with its 95 % interval; “off true” "
            "is the change of the distance to the true value, negative is closer. ▲ better, ▼ worse, where the interval excludes zero."
        )
    return page.paragraph(text, soft=True)


def _published(subjects: Subjects) -> str:
    """The published table beside what was measured, where the recipe has one."""
    beside = subjects.published
    if beside is None:
        return ""
    return "<h3>Beside the published table</h3>" + page.table(*beside.table(subjects.rows)) + page.paragraph(beside.caption, soft=True)


def _curves(subjects: Subjects) -> str:
    png = curves_png({model.name: model.metrics for model in subjects.models if model.metrics}, subjects.colours)
    if png is None:
        return page.paragraph("No training log here.")
    names = ", ".join(model.name for model in subjects.models if model.metrics)
    caption = "Means over logging intervals during training, raw values before weights. A prior that is off in a run has no line there."
    return page.figure(png, f"training curves of {names}", caption)


def _what_was_run(subjects: Subjects) -> str:
    headings = ["model", "images seen", "time", "seed", "batch", "commit", "versions", "hardware"]
    body = page.table(headings, [_run_row(model) for model in subjects.models])
    reference = next((m for m in subjects.models if m.name == subjects.control), subjects.models[0])
    for model in subjects.models:
        if model is reference or model.is_start:
            continue
        lines = reference.run.recipe.difference(model.run.recipe)
        body += f"<h3>{escape(reference.name)} → {escape(model.name)}: what differs in the recipe</h3>"
        body += page.preformatted("\n".join(lines) or "nothing")
    protocol = next((row.result.protocol for row in subjects.rows), None)
    if protocol is not None:
        body += "<h3>Protocol of the measures, equal for all rows</h3>" + page.preformatted("\n".join(_lines(protocol)))
    recipe = reference.run.recipe.to_yaml()
    return body + f"<details><summary>Resolved recipe of {escape(reference.name)}</summary>{page.preformatted(recipe)}</details>"


def _run_row(model: Subject) -> Row:
    record, recipe = model.record, model.run.recipe
    hardware = record.get("hardware") or {}
    machine = ", ".join([str(hardware.get("processor", "")), f"{hardware.get('threads')} threads", *hardware.get("devices", [])])
    seconds = record.get("seconds")
    return Row(
        model.name,
        [
            Cell(_count(model.run.images)),
            Cell(_duration(seconds) if isinstance(seconds, (int, float)) else "–"),
            Cell(str(recipe.seed)),
            Cell(str(recipe.training.batch)),
            Cell(str(record.get("commit") or "–")),
            Cell(", ".join(f"{name} {record[name]}" for name in ("priorzoo", "torch", "python") if name in record) or "–"),
            Cell(machine if hardware else "–"),
        ],
    )


def _count(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def _duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> _duration(75), _duration(8.4), _duration(7320)
    ('1 min 15 s', '8 s', '2 h 2 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _lines(values: dict[str, Any], prefix: str = "") -> list[str]:
    out: list[str] = []
    for key, value in values.items():
        out += _lines(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}: {value}"]
    return out


def _home(place: str | Path, subjects: Subjects) -> Path:
    return Path(place) if Path(place).is_dir() else subjects.models[0].run.folder
