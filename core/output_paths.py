"""Where a file is to be written: that it can be, and what is in the way, is known before the work."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .errors import OutputError


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise OutputError unless a file can be written at ``path``: no folder is there, and the nearest folder above takes files.

    Nothing is left behind, nor made: folders that are missing are made when the file is.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        place = _nearest(target)
        if place.is_dir():
            tempfile.TemporaryFile(dir=place).close()
        else:
            raise NotADirectoryError
    except OSError as error:
        raise refusal(target, error) from error


def require_free(paths: Iterable[str | os.PathLike[str]], force: bool) -> None:
    """Raise OutputError unless every one of ``paths`` can be written, and is free or may be replaced (``force``)."""
    for path in paths:
        require_writable(path)
        if Path(path).exists() and not force:
            raise OutputError(f"{path}: exists already; --force replaces it")


def refusal(target: Path, error: OSError) -> OutputError:
    """Return what to say where a file, or a folder above it, cannot be written.

    >>> import tempfile
    >>> str(refusal(Path(tempfile.mkdtemp()) / "a.png", OSError(28, "No space left on device"))).partition("a.png")[2]
    ': cannot be written: No space left on device'
    """
    reason = error.strerror or str(error)
    with suppress(OSError):
        place = _nearest(target)
        reason = reason if place.is_dir() else f"{place} is a file, not a folder"
    return OutputError(f"{target}: cannot be written: {reason}")


def _nearest(target: Path) -> Path:
    """What exists of the folders above a file."""
    return next(place for place in target.absolute().parents if place.exists())
