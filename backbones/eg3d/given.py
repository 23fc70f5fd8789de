"""What a published file says of its networks, read with types: attributes within bounds, sizes that must agree with tensors."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ...core.errors import CheckpointError

Shapes = dict[str, tuple[int, ...]]


class Given:
    """Typed access to what a file says, with errors that name the place, what was got and what is expected."""

    def __init__(self, values: dict[str, Any], where: str) -> None:
        self.values, self.where = values, where

    def get(self, key: str) -> Any:
        """Return the value as it stands, None where there is none."""
        return self.values.get(key)

    def _value(self, key: str, default: Any, kinds: tuple[type, ...], what: str) -> Any:
        value = self.values.get(key, default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, value, what)
        return value

    def wrong(self, key: str, value: Any, what: str) -> CheckpointError:
        """Return the error for a value that is not what is expected."""
        got = repr(value)[:60] if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__.lower()
        return CheckpointError(f"{self.where}: {key} is {got}, {what} is expected")

    def integer(self, key: str, default: int | None = None, *, least: int = 0, most: int = 1 << 20) -> int:
        """Return an integer of the range."""
        value = self._value(key, default, (int,), "an integer")
        if not least <= value <= most:
            raise self.wrong(key, value, f"an integer from {least} to {most}")
        return int(value)

    def real(self, key: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self._value(key, default, (int, float), "a number")
        if not np.isfinite(float(value)):
            raise self.wrong(key, value, "a finite number")
        return float(value)

    def flag(self, key: str, default: bool | None = None) -> bool:
        """Return a truth value."""
        return bool(self._value(key, default, (bool,), "true or false"))

    def word(self, key: str, default: str | None = None, *, allowed: tuple[str, ...] = ()) -> str:
        """Return a text, one of those allowed."""
        value = str(self._value(key, default, (str,), "text"))
        if allowed and value not in allowed:
            raise self.wrong(key, value, " or ".join(map(repr, allowed)))
        return value

    def section(self, key: str) -> Given:
        """Return a dict inside; an empty one where there is none."""
        return Given(self._value(key, {}, (dict,), "a dict"), f"{self.where}.{key}")


def shape_of(shapes: Shapes, name: str, dimensions: int, where: str) -> tuple[int, ...]:
    """Return a tensor's shape; raises CheckpointError where it is missing or has other dimensions."""
    found = shapes.get(name)
    if found is None or len(found) != dimensions:
        got = "missing" if found is None else f"of shape {list(found)}"
        raise CheckpointError(f"{where}: tensor {name} is {got}; {dimensions} dimensions are expected")
    return found


def agreed(what: str, stated: int, stored: int, where: str) -> int:
    """Return what attributes and tensors both say; raises CheckpointError with both where they differ."""
    if stated != stored:
        raise CheckpointError(f"{where}: contradicts itself: {what} is {stated} by its attributes and {stored} by its tensors")
    return stored


def layers_of(shapes: Shapes, prefix: str) -> int:
    """Count the fully connected layers below a prefix."""
    return sum(1 for name in shapes if re.fullmatch(re.escape(prefix) + r"fc\d+\.weight", name))
