"""Checks of options: each error names whose option it is, the option, what was got and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .errors import PriorzooError, did_you_mean


def check_number(
    owner: str,
    option: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise PriorzooError unless ``value`` is finite, >= ``least``, > ``above``, <= ``most`` and < ``below``.

    >>> try:
    ...     check_number("ssr", "hardest", 1.5, above=0.0, most=1.0)
    ... except PriorzooError as error:
    ...     print(error)
    ssr: hardest must be a number > 0 and <= 1, got 1.5
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    inside = number and abs(value) != float("inf") and all((
        least is None or value >= least, above is None or value > above, most is None or value <= most,
        below is None or value < below,
    ))  # fmt: skip
    if inside:
        return
    limits = ((">=", least), (">", above), ("<=", most), ("<", below))
    allowed = " and ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
    raise PriorzooError(f"{owner}: {option} must be a number {allowed}".rstrip() + f", got {value!r}")


def check_odd(owner: str, option: str, value: Any, *, least: int) -> None:
    """Raise PriorzooError unless ``value`` is an odd whole number, at least ``least``.

    >>> try:
    ...     check_odd("ssr", "window", 4, least=3)
    ... except PriorzooError as error:
    ...     print(error)
    ssr: window must be an odd whole number >= 3, got 4
    """
    # A schedule hands over whole numbers as floats.
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0
    if not whole or value < least or value % 2 == 0:
        raise PriorzooError(f"{owner}: {option} must be an odd whole number >= {least}, got {value!r}")


def check_count(owner: str, option: str, value: Any) -> None:
    """Raise PriorzooError unless ``value`` is a whole number, at least 1."""
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0
    if not whole or value < 1:
        raise PriorzooError(f"{owner}: {option} must be a whole number >= 1, got {value!r}")


def check_choice(owner: str, option: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise PriorzooError, with the nearest name, unless ``value`` is one of ``allowed``.

    >>> try:
    ...     check_choice("ssr", "scope", "batches", ("sample", "batch"))
    ... except PriorzooError as error:
    ...     print(error)
    ssr: scope must be one of sample, batch; got 'batches', did you mean 'batch'?
    """
    names = tuple(allowed)
    if value not in names:
        raise PriorzooError(f"{owner}: {option} must be one of {', '.join(names)}; got {value!r}{did_you_mean(str(value), names)}")


def check_flag(owner: str, option: str, value: Any) -> None:
    """Raise PriorzooError unless ``value`` is true or false."""
    if not isinstance(value, bool):
        raise PriorzooError(f"{owner}: {option} must be true or false, got {value!r}")
