"""Means over latents, their 95 % intervals, and paired differences between two models over the same latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval: ``value``, ``low``, ``high``, and ``count`` independent items behind it.

    ``low`` and ``high`` are NaN for fewer than two items, ``value`` for none.
    """

    value: float
    low: float
    high: float
    count: int

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0

    def to_plain(self) -> dict[str, float | int | None]:
        """Return what a result's file holds of it: NaN is null.

        >>> Interval(1.0, math.nan, math.nan, 1).to_plain()
        {'value': 1.0, 'low': None, 'high': None, 'count': 1}
        """
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {**{name: float(v) if math.isfinite(v) else None for name, v in numbers.items()}, "count": self.count}


def mean_interval(values: Array) -> Interval:
    """Mean of independent values [n] and its 95 % Student-t interval; NaN entries (nothing to measure) are left out.

    mean +- t(0.975, n-1) s / sqrt(n).

    >>> i = mean_interval(np.array([1.0, 2.0, 3.0, np.nan]))
    >>> i.count, i.value, round(i.high - i.value, 3)
    (3, 2.0, 2.484)
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[np.isfinite(kept)]
    count = len(kept)
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    value = float(kept.mean())
    if count == 1:
        return Interval(value, math.nan, math.nan, 1)
    half = student_quantile(count - 1) * float(kept.std(ddof=1)) / math.sqrt(count)
    return Interval(value, value - half, value + half, count)


def student_quantile(degrees_of_freedom: int) -> float:
    """The 97.5 % quantile of Student's t.

    >>> round(student_quantile(7), 4)
    2.3646
    """
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.975))


def paired_interval(a: Array, b: Array) -> Interval:
    """Mean of a - b over pairs [n] and its 95 % interval (paired t); pairs with a NaN on either side are left out.

    Raises ValueError when the lengths differ.

    >>> paired_interval(np.array([2.0, 3.0]), np.array([1.0, 2.0])).value
    1.0
    """
    if a.shape != b.shape:
        raise ValueError(f"pairs need equal lengths, got {a.shape} and {b.shape}")
    return mean_interval(a - b)


def distance_terms(values: Array, true: float) -> Array:
    """Terms [n] whose mean is |mean(values) - true|: the distance to the true value, one term per latent.

    sign(mean - true) (x_i - true). The interval of their mean is that of the distance to first order (delta method), so
    distances can be compared pair by pair like any other column.

    >>> distance_terms(np.array([1.0, 2.0]), 4.0).mean()
    np.float64(2.5)
    """
    sign = 1.0 if float(np.nanmean(values)) >= true else -1.0
    return np.asarray(sign * (values - true), dtype=np.float64)
