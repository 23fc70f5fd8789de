"""Schedules: numbers that change during training, as named objects with a unit.

A schedule is written in a recipe as a mapping with named fields; the unit of its positions is ``images`` (default)
or ``steps``, because published codes differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from .errors import PriorzooError, did_you_mean

UNITS = ("images", "steps")


@dataclass(frozen=True)
class Schedule:
    """A number as a function of progress; the base of all kinds, and the check of the unit."""

    unit: str = "images"
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise PriorzooError(f"schedule: unit {self.unit!r} is not one of {', '.join(UNITS)}" + did_you_mean(str(self.unit), UNITS))

    def at(self, *, images: int, steps: int) -> float:
        """Return the value after ``images`` real images and ``steps`` optimiser steps."""
        return self._value(float(images if self.unit == "images" else steps))

    def _value(self, position: float) -> float:
        raise NotImplementedError(f"{type(self).__name__} must define _value")

    def to_plain(self) -> dict[str, Any]:
        """Return the mapping that a recipe would hold."""
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in fields(self)}}


def _check_order(kind: str, begin: float, until: float) -> None:
    if until < begin:
        raise PriorzooError(f"schedule {kind}: until must not lie before begin {begin:g}, got {until:g}")


def _share(position: float, begin: float, until: float) -> float:
    """How much of the way from ``begin`` to ``until`` is done, in [0, 1]; where they are one it is a step."""
    if position >= until:
        return 1.0
    return 0.0 if position <= begin else (position - begin) / (until - begin)


@dataclass(frozen=True)
class Linear(Schedule):
    """From ``start`` to ``end`` in a straight line between positions ``begin`` and ``until``, constant outside.

    >>> Linear(start=0.0, end=1.0, until=100).at(images=25, steps=0)
    0.25
    """

    start: float = 0.0
    end: float = 1.0
    begin: float = 0.0
    until: float = 1.0
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order(self.kind, self.begin, self.until)

    def _value(self, position: float) -> float:
        return self.start + (self.end - self.start) * _share(position, self.begin, self.until)


@dataclass(frozen=True)
class Exponential(Schedule):
    """``start * exp(rate * position)``, never more than ``start * cap`` (GOF's opacity weight grows so).

    >>> round(Exponential(start=0.01, rate=0.5e-5, cap=10, unit="steps").at(images=0, steps=200_000), 6)
    0.027183
    """

    start: float = 1.0
    rate: float = 0.0
    cap: float = math.inf
    kind: ClassVar[str] = "exponential"

    def _value(self, position: float) -> float:
        return self.start * min(math.exp(min(self.rate * position, 700.0)), self.cap)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From ``start`` to ``end`` along half a cosine between ``begin`` and ``until``, constant outside.

    >>> Cosine(start=1.0, end=0.0, until=100).at(images=50, steps=0)
    0.5
    """

    start: float = 0.0
    end: float = 1.0
    begin: float = 0.0
    until: float = 1.0
    kind: ClassVar[str] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_order(self.kind, self.begin, self.until)

    def _value(self, position: float) -> float:
        share = _share(position, self.begin, self.until)
        return self.start + (self.end - self.start) * (0.5 - 0.5 * math.cos(math.pi * share))


@dataclass(frozen=True)
class Steps(Schedule):
    """``values[i]`` from position ``at_positions[i]`` on; the first position is 0.

    >>> Steps(values=(1.0, 2.0), at_positions=(0, 10)).at(images=10, steps=0)
    2.0
    """

    values: tuple[float, ...] = (1.0,)
    at_positions: tuple[float, ...] = (0.0,)
    kind: ClassVar[str] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        positions = tuple(self.at_positions)
        if len(positions) != len(self.values) or not positions or positions[0] != 0 or list(positions) != sorted(set(positions)):
            raise PriorzooError(
                "schedule steps: at_positions must start at 0, grow, and be as many as values; got "
                f"{list(positions)} for {len(self.values)} values"
            )

    def _value(self, position: float) -> float:
        return next(v for v, p in zip(reversed(self.values), reversed(self.at_positions), strict=True) if position >= p)


KINDS: dict[str, type[Schedule]] = {c.kind: c for c in (Linear, Exponential, Cosine, Steps)}


def schedule_from_plain(mapping: dict[str, Any]) -> Schedule:
    """Build the schedule that a recipe's mapping describes.

    Raises PriorzooError for an unknown kind or field, with the nearest name.

    >>> schedule_from_plain({"kind": "linear", "start": 0, "end": 2, "until": 10}).at(images=5, steps=0)
    1.0
    """
    values = dict(mapping)
    kind = values.pop("kind", None)
    if kind not in KINDS:
        raise PriorzooError(f"schedule: kind {kind!r} is not one of {', '.join(KINDS)}" + did_you_mean(str(kind), KINDS))
    allowed = [f.name for f in fields(KINDS[kind])]
    for name in values:
        if name not in allowed:
            raise PriorzooError(f"schedule {kind}: unknown field {name!r}; allowed: {', '.join(allowed)}" + did_you_mean(name, allowed))
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in plain.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if name != "unit" and not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
            raise PriorzooError(f"schedule {kind}: {name} must be a number, got {value!r}")
    return KINDS[kind](**plain)


def value_at(number: float | Schedule, *, images: int, steps: int) -> float:
    """Return a plain number as it is, a schedule at this progress."""
    return number.at(images=images, steps=steps) if isinstance(number, Schedule) else float(number)
