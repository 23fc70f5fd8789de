"""A zip file or a folder read as one thing: named entries with bytes, from any process."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..core.errors import DataError


class Archive:
    """Entries of a zip file or of a folder by their relative names with forward slashes.

    The handle is opened per process on first use: after a fork two processes must not share one file position.

    Raises:
        DataError: nothing at `path`, a file that is not a whole zip, an entry that is missing or damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._zip: zipfile.ZipFile | None = None
        self._owner = -1
        if not self.path.exists():
            raise DataError(f"{self.path}: no such file or folder")
        if self.path.is_dir():
            files = (Path(folder) / name for folder, _, names in os.walk(self.path) for name in names)
            self._names = sorted(file.relative_to(self.path).as_posix() for file in files)
        else:
            self._names = sorted(name for name in self._open().namelist() if not name.endswith("/"))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_zip": None, "_owner": -1}

    def names(self) -> list[str]:
        """All entries, sorted by name."""
        return self._names

    def _open(self) -> zipfile.ZipFile:
        if self._zip is None or self._owner != os.getpid():
            try:
                self._zip, self._owner = zipfile.ZipFile(self.path), os.getpid()
            except (zipfile.BadZipFile, OSError) as error:
                raise DataError(f"{self.path}: not a readable zip ({error}); a copy cut short looks like this") from error
        return self._zip

    def read(self, name: str) -> bytes:
        """The bytes of one entry; a zip's checksum is verified on the way."""
        try:
            return (self.path / name).read_bytes() if self.path.is_dir() else self._open().read(name)
        except KeyError as error:
            raise DataError(f"{self.path}: holds no entry {name!r}") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{self.path}: entry {name!r} cannot be read ({error})") from error

    @contextmanager
    def stream(self, name: str) -> Iterator[IO[bytes]]:
        """One entry as an open file, for a reader that wants its first bytes only."""
        try:
            with (self.path / name).open("rb") if self.path.is_dir() else self._open().open(name) as file:
                yield file
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise DataError(f"{self.path}: entry {name!r} cannot be read ({error})") from error

    def checksum(self, name: str) -> str:
        """Text that changes with an entry's bytes: size and CRC from a zip's directory, unread; the hash of a folder's file."""
        if self.path.is_dir():
            return hashlib.sha256(self.read(name)).hexdigest()
        try:
            entry = self._open().getinfo(name)
        except KeyError as error:
            raise DataError(f"{self.path}: holds no entry {name!r}") from error
        return f"{entry.file_size}:{entry.CRC:08x}"
