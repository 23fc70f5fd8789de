"""The errors priorzoo raises on purpose: each says what was wrong, where, what was got and what is allowed.

The command line prints them without a traceback and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PriorzooError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class RecipeError(PriorzooError):
    """A recipe that cannot be run: carries file, line and key of the culprit."""


class DataError(PriorzooError):
    """A data set that cannot be used: names the entry."""


class CheckpointError(PriorzooError):
    """A checkpoint or weight file that cannot be used: names the file and the tensor."""


class RunError(PriorzooError):
    """A run folder that cannot be continued, or that another process is using."""


class UnknownNameError(PriorzooError):
    """A registry name that nobody registered."""


class MissingBufferError(PriorzooError):
    """A buffer was asked of a scene that was rendered without it."""


class NonFiniteError(PriorzooError):
    """Training met a loss or a gradient that is not finite."""


class StoppedError(PriorzooError):
    """Training was asked to stop (SIGTERM) and did, after a checkpoint: the command line exits with code 143."""


class OutputError(PriorzooError, OSError):
    """A file that cannot be written: names it and the reason. An OSError too, for whoever looks after a disk that is full."""


class MissingPackageError(PriorzooError):
    """An optional package is needed and absent: carries the install line."""


def nearest_name(name: str, allowed: Iterable[str]) -> str | None:
    """Return the allowed name that looks most like ``name``, or None when none is close.

    >>> nearest_name("smothness", ["smoothness", "opacity"])
    'smoothness'
    >>> nearest_name("zzz", ["smoothness", "opacity"]) is None
    True
    """
    close = difflib.get_close_matches(name, list(allowed), n=1, cutoff=0.6)
    return close[0] if close else None


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"`` for the nearest allowed name, or an empty string.

    >>> did_you_mean("sssr", ["ssr", "opacity"])
    ", did you mean 'ssr'?"
    """
    near = nearest_name(name, allowed)
    return f", did you mean {near!r}?" if near else ""
