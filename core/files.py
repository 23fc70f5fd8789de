"""Files are written whole or not at all, and known by their digest."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .output_paths import refusal

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path beside ``path``; when the block succeeds it replaces ``path``, when it fails nothing is left.

    The data reach the disk before the rename, so a power cut leaves the old file or the new one, never a half. Raises OutputError
    where the file cannot be made or the disk takes no more.

    >>> import tempfile, pathlib
    >>> target = pathlib.Path(tempfile.mkdtemp()) / "a.txt"
    >>> with write_atomically(target) as beside:
    ...     _ = beside.write_text("whole")
    >>> target.read_text()
    'whole'
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # The suffix is kept: many writers choose the format by it.
        handle, name = tempfile.mkstemp(prefix=f".{target.stem}.", suffix=f".partial{target.suffix}", dir=target.parent)
    except OSError as error:
        raise refusal(target, error) from error
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; give the umask's ordinary permissions.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, target)
    except OSError as error:
        # The block's other troubles, such as a file that it cannot read, are not the target's.
        if error.errno in _DISK or error.filename == str(beside):
            raise refusal(target, error) from error
        raise
    finally:
        with suppress(FileNotFoundError):
            beside.unlink()


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    with write_atomically(path) as beside:
        beside.write_text(text, encoding="utf-8")


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return a file's SHA-256 as 64 hexadecimal digits, read in pieces.

    >>> import pathlib
    >>> empty = pathlib.Path(tempfile.mkdtemp()) / "empty"
    >>> empty.touch(); file_digest(empty)[:8]
    'e3b0c442'
    """
    total = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            total.update(piece)
    return total.hexdigest()
