"""Opening a pickle: the file is mapped, not read, and its numbers stay there until somebody asks for them."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import Machine
from .names import AllowList
from .values import Limits, PickleError, Spent

_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class PickleFile:
    """A pickle that was read: its value, its size and the names of the classes with source text in it."""

    path: Path
    value: Any
    size: int
    classes: tuple[str, ...]
    data: memoryview


def read_pickle(path: str | os.PathLike[str], names: AllowList, limits: Limits | None = None) -> PickleFile:
    """Read a pickle that names nothing but what is on the list; nothing of it is imported or run.

    Raises PickleError with the byte offset and the reason for anything else, and for what is truncated, oversized or recursive.
    """
    place, bounds = Path(path), limits or Limits()
    where = str(place)
    try:
        with open(place, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise PickleError(where, 0, "the file is empty")
            if size > bounds.file_bytes:
                raise PickleError(where, 0, f"oversized: {size} bytes, at most {bounds.file_bytes} are allowed")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise PickleError(where, 0, f"cannot be opened: {error.strerror}") from error
    if data[:4] == _ZIP:
        raise PickleError(where, 0, "a zip archive (torch.save), not the plain pickle that such a checkpoint is")
    spent = Spent()
    machine = Machine(data, names, where, limits=bounds, spent=spent)
    value = machine.load()
    if machine.position != size:
        raise PickleError(where, machine.position, f"{size - machine.position} bytes follow the end of the pickle")
    return PickleFile(place, value, size, tuple(spent.classes), data)
