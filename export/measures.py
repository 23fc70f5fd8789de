"""Measures as tables and sentences: values, paired differences to a control, and what they do and do not say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..metrics.columns import COLUMNS, HIGHER, TRUE
from ..metrics.protocol import Result, judged_difference, paired_difference
from ..metrics.statistics import Interval
from .page import Cell, Row

GROUP_NAMES = {
    "images": "Images",
    "truth": "(a) Shape against truth: held-out heads, inverted from the image alone",
    "estimated": "(b) Shape against an estimator's reading of the generated image",
    "distribution": "(c) Shape statistics of generated heads, beside those of true heads",
}
TABLE_COLUMNS = (
    "fd_heads", "kd_heads", "fid", "kid", "truth_depth", "truth_normal_skin", "truth_normal_eyes", "sr_skin", "sr_eyes",
)  # fmt: skip
"""Columns of the short table, in the order of the paper's Table 1, then shapes; those that were not measured are left out."""
_NOT_SHAPE = "truth_image"  # how well an image was inverted says nothing of the shape behind it
BETTER, WORSE = "better", "worse"


@dataclass(frozen=True)
class Measured:
    """One row: its ``name``, which switches are on (R1, then one for each prior of any row), and its ``result``."""

    name: str
    result: Result
    switches: Mapping[str, bool] = field(default_factory=dict)


def number(value: float, *, signed: bool = False) -> str:
    """Return a number with three significant digits, an en dash where there is none.

    >>> number(0.01234), number(123.4), number(2.0, signed=True), number(math.nan)
    ('0.0123', '123', '+2.00', '–')
    """
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3 if size >= 0.09995 else 4
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")


def interval_text(interval: Interval) -> str:
    """Return a signed value with its 95 % interval.

    >>> interval_text(Interval(-1.0, -1.5, -0.5, 8))
    '−1.00 [−1.50, −0.500]'
    """
    if not math.isfinite(interval.low):
        return number(interval.value, signed=True)
    return f"{number(interval.value, signed=True)} [{number(interval.low, signed=True)}, {number(interval.high, signed=True)}]"


def verdict(result: Result, control: Result, column: str) -> str:
    """Return 'better' or 'worse' where the paired interval excludes zero in that direction, else ''.

    Better is lower, higher, or closer to the true value, as the column's goal says.
    """
    judged = judged_difference(result, control, column)
    if not math.isfinite(judged.low) or not judged.excludes_zero:
        return ""
    return BETTER if judged.value < 0 else WORSE


def difference_text(result: Result, control: Result, column: str) -> str:
    """Return the paired difference to the control; for columns that aim at a true value, that of the distances to it."""
    to_true = COLUMNS[column].goal == TRUE and result.has_true_value(column)
    difference = paired_difference(result, control, column, distance=to_true)
    if not math.isfinite(difference.value):
        return ""
    return f"{'off true ' if to_true else ''}{interval_text(difference)}"


def present_columns(rows: Sequence[Measured]) -> list[str]:
    """Return the columns that at least one row has, in the order of tables."""
    return [key for key in COLUMNS if any(key in row.result.terms for row in rows)]


def short_table(rows: Sequence[Measured], control: str | None) -> tuple[list[str], list[Row]]:
    """Return headings and rows in the shape of the paper's Table 1: switches, image quality, then shape.

    Below each value stands the paired difference to the ``control`` row. A last row gives the values of true heads.
    """
    keys = [key for key in TABLE_COLUMNS if key in present_columns(rows)]
    switches = list(dict.fromkeys(name for row in rows for name in row.switches))
    headings = ["model", *switches, *(heading(key) for key in keys)]
    reference = _named(rows, control)
    out = []
    for row in rows:
        marks = [Cell("×" if row.switches.get(name) else "") for name in switches]
        out.append(Row(row.name + (" (control)" if row.name == control else ""),
                       [*marks, *(_cell(row, reference, key) for key in keys)]))  # fmt: skip
    true = [_true_value(rows, key) for key in keys]
    if any(value is not None for value in true):
        blanks = [Cell("") for _ in switches]
        out.append(Row("true heads", [*blanks, *(Cell("" if v is None else number(v.value)) for v in true)]))
    return headings, out


def full_table(rows: Sequence[Measured], control: str | None) -> tuple[list[str], list[Row]]:
    """Return headings and rows of every measured column, one row each, grouped, with the models side by side."""
    keys, reference = present_columns(rows), _named(rows, control)
    with_true = any(_true_value(rows, key) is not None for key in keys)
    headings = ["measure", *(row.name for row in rows), *(["true heads"] if with_true else [])]
    out: list[Row] = []
    for group, title in GROUP_NAMES.items():
        inside = [key for key in keys if COLUMNS[key].group == group]
        if inside:
            out.append(Row(title))
        for key in inside:
            cells = [_cell(row, reference, key) for row in rows]
            true = _true_value(rows, key)
            if with_true:
                cells.append(Cell("" if true is None else number(true.value)))
            out.append(Row(heading(key), cells, COLUMNS[key].meaning))
    return headings, out


@dataclass(frozen=True)
class Finding:
    """What the paired intervals say of one row against the control: lists of measures, as text."""

    name: str
    control: str
    truer: list[str]
    less_true: list[str]
    undecided: list[str]
    images: list[str]

    def sentences(self) -> list[str]:
        """The finding as plain sentences."""
        total = len(self.truer) + len(self.less_true) + len(self.undecided)
        out = [f"Truer than {self.control} in {len(self.truer)} of {total} shape measures" + _listed(self.truer)]
        out.append(f"Less true in {len(self.less_true)}" + _listed(self.less_true))
        out.append(f"Undecided in {len(self.undecided)}" + _listed(self.undecided))
        return out + ([f"Images: {'; '.join(self.images)}."] if self.images else [])


def findings(rows: Sequence[Measured], control: str | None) -> list[Finding]:
    """Return what is decided beyond chance about each row but the control and the start (a row whose switches are all off)."""
    reference = _named(rows, control)
    if reference is None:
        return []
    out = []
    for row in rows:
        if row is reference or (row.switches and not any(row.switches.values())):
            continue
        shape = [key for key in _shared(row, reference) if _is_evidence(key, row.result) and _is_decidable(row, reference, key)]
        groups: dict[str, list[str]] = {BETTER: [], WORSE: [], "": []}
        for key in shape:
            how = verdict(row.result, reference.result, key)
            text = f"({'a' if COLUMNS[key].group == 'truth' else 'c'}) {COLUMNS[key].label}"
            groups[how].append(f"{text} {difference_text(row.result, reference.result, key)}" if how else text)
        out.append(Finding(row.name, reference.name, groups[BETTER], groups[WORSE], groups[""], _images(row, reference)))
    return out


def meanings(rows: Sequence[Measured]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return, group by group, the heading and the meaning of every measured column."""
    keys = present_columns(rows)
    groups = [(title, [k for k in keys if COLUMNS[k].group == group]) for group, title in GROUP_NAMES.items()]
    return [(title, [(heading(key), COLUMNS[key].meaning + ".") for key in inside]) for title, inside in groups if inside]


def _images(row: Measured, reference: Measured) -> list[str]:
    keys = [key for key in _shared(row, reference) if COLUMNS[key].group == "images"]
    return [f"{COLUMNS[key].label} {difference_text(row.result, reference.result, key)}, {_in_words(row, reference, key)}" for key in keys]


def _in_words(row: Measured, reference: Measured, key: str) -> str:
    how = verdict(row.result, reference.result, key)
    if how:
        return how
    known = math.isfinite(judged_difference(row.result, reference.result, key).low)
    return "no difference beyond chance" if known else "without interval"


def _listed(items: Sequence[str]) -> str:
    return f": {'; '.join(items)}." if items else "."


def _shared(row: Measured, reference: Measured) -> list[str]:
    return [key for key in present_columns([row]) if key in reference.result.terms]


def _is_decidable(row: Measured, reference: Measured, key: str) -> bool:
    return math.isfinite(judged_difference(row.result, reference.result, key).value)


def _is_evidence(key: str, result: Result) -> bool:
    """Whether the column may carry the word 'truer': paired truth, or a statistic beside that of true heads."""
    group = COLUMNS[key].group
    return (group == "truth" and key != _NOT_SHAPE) or (group == "distribution" and result.has_true_value(key))


def _cell(row: Measured, reference: Measured | None, key: str) -> Cell:
    if key not in row.result.terms:
        return Cell("")
    text = number(row.result.value(key).value)
    if reference is None or row is reference or key not in reference.result.terms:
        return Cell(text)
    how = verdict(row.result, reference.result, key)
    # A sign beside the colour: not everybody sees colours.
    sign = {BETTER: "▲ ", WORSE: "▼ "}.get(how, "")
    return Cell(text, sign + difference_text(row.result, reference.result, key), how)


def _named(rows: Sequence[Measured], name: str | None) -> Measured | None:
    return next((row for row in rows if row.name == name), None)


def _true_value(rows: Sequence[Measured], key: str) -> Interval | None:
    return next((true for row in rows if (true := row.result.true_value(key)) is not None), None)


def heading(key: str) -> str:
    """Return a column's label with its unit and an arrow to where better is.

    >>> heading("fid"), heading("precision")
    ('FID ↓', 'precision ↑')
    """
    column = COLUMNS[key]
    arrow = {HIGHER: " ↑", TRUE: " → true"}.get(column.goal, " ↓")
    unit = column.unit.replace("^2", "²")
    return column.label + (f" ({unit})" if unit else "") + arrow
