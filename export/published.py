"""A published table beside what was measured here: every row and column that it has, whether we ran it or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..metrics.columns import COLUMNS
from .measures import Measured, heading, number
from .page import Cell, Row

if TYPE_CHECKING:
    from ..core.recipe.schema import Published

NOT_RUN, NOT_MEASURED = "not run", "not measured"


@dataclass(frozen=True)
class PublishedTable:
    """``published`` as the recipe gives it, and the names of the rows that an ablation has, in order."""

    published: Published
    names: tuple[str, ...]

    @property
    def caption(self) -> str:
        """Where the published numbers come from, and what they are beside ours."""
        return (
            f"Published: {self.published.source}. Copied from there, not measured here; the same data, weights of Inception, number of "
            "images and precision are needed before two numbers may be compared."
        )

    def columns(self) -> list[str]:
        """The published columns, in the order of tables."""
        return [key for key in COLUMNS if any(key in row for row in self.published.rows.values())]

    def table(self, rows: Sequence[Measured]) -> tuple[list[str], list[Row]]:
        """Return headings and rows: for each published column what was measured here, and what was published."""
        keys, measured = self.columns(), {row.name: row for row in rows}
        headings = ["model", *(text for key in keys for text in (heading(key), "published"))]
        out = []
        for name in self.names:
            if name not in self.published.rows and name not in measured:
                continue
            printed = self.published.rows.get(name, {})
            cells = []
            for key in keys:
                cells.append(Cell(_ours(measured.get(name), key)))
                cells.append(Cell(number(printed[key]) if key in printed else "–"))
            out.append(Row(name, cells))
        return headings, out


def _ours(row: Measured | None, key: str) -> str:
    if row is None:
        return NOT_RUN
    return number(row.result.value(key).value) if key in row.result.terms else NOT_MEASURED
