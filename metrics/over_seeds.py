"""Several trainings of one recipe that differ in the seed alone: means over seeds, and paired differences between recipes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..core.errors import PriorzooError
from .columns import COLUMNS, TRUE
from .protocol import Result, require_equal_protocols
from .statistics import Interval, mean_interval


@dataclass
class Seeds:
    """The results of one recipe by training seed; ``name`` is shown."""

    name: str
    results: dict[int, Result] = field(default_factory=dict)

    def values(self, column: str) -> list[float]:
        """The column's value of every seed, in the order of seeds."""
        return [self.results[seed].value(column).value for seed in sorted(self.results)]

    def value(self, column: str) -> Interval:
        """Mean over seeds with its 95 % Student-t interval: training is what varies, latents are averaged within a seed.

        >>> one, other = (Result("r", {}, {"truth_iou": np.array([v])}) for v in (0.8, 0.9))
        >>> round(Seeds("a", {0: one, 1: other}).value("truth_iou").value, 3)
        0.85
        """
        return mean_interval(np.array(self.values(column)))

    def to_true(self, column: str) -> bool:
        """Whether the column aims at a true value that these results know."""
        return COLUMNS[column].goal == TRUE and next(iter(self.results.values())).has_true_value(column)

    def difference(self, other: Seeds, column: str) -> Interval:
        """Mean over common seeds of this minus ``other``; of the distances to the true value where the column aims at one.

        Raises PriorzooError without a common seed.
        """
        common = sorted(self.results.keys() & other.results.keys())
        if not common:
            mine, theirs = sorted(self.results), sorted(other.results)
            raise PriorzooError(f"{self.name} and {other.name} have no training seed in common: {mine} and {theirs}")
        pairs = [(self.results[seed], other.results[seed]) for seed in common]
        if self.to_true(column):
            return mean_interval(np.array([a.distance(column).value - b.distance(column).value for a, b in pairs]))
        return mean_interval(np.array([a.value(column).value - b.value(column).value for a, b in pairs]))


def check_seeds(groups: Sequence[Seeds]) -> list[str]:
    """Return the columns that all results have; raises PriorzooError where protocols differ."""
    everything = [result for group in groups for result in group.results.values()]
    require_equal_protocols(everything)
    return [key for key in everything[0].columns() if all(key in result.terms for result in everything)]
