"""What a restricted pickle can hold: plain values, bytes that stay in the file, tensors that are not copied yet, inert records."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import CheckpointError


class PickleError(CheckpointError):
    """A pickle that is refused: file, byte offset and reason. ``classes`` are the class names that were read until then."""

    def __init__(self, file: str, offset: int, reason: str, classes: Iterable[str] = ()) -> None:
        super().__init__(f"{file}: byte {offset}: {reason}")
        self.offset, self.reason, self.classes = offset, reason, tuple(classes)


class Refusal(Exception):
    """A reason to refuse, raised where the byte offset is not known; the machine adds it."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one file. A full-size EG3D pickle takes a third of the operations and a third of the depth.

    ``tensors`` and ``modules`` bound what shared parts may be unfolded to.
    """

    file_bytes: int = 8 << 30
    operations: int = 200_000
    depth: int = 100
    text_bytes: int = 32 << 20
    name_bytes: int = 256
    integer_bytes: int = 16
    modules: int = 20_000
    values: int = 20_000


@dataclass
class Spent:
    """What a file has used of its limits, nested pickles included."""

    operations: int = 0
    decoded_bytes: int = 0
    classes: dict[str, None] = field(default_factory=dict)


class Blob:
    """Bytes that stay in the mapped file: ``data``, and ``start``, their offset in the file."""

    __slots__ = ("data", "start")

    def __init__(self, data: memoryview, start: int) -> None:
        self.data, self.start = data, start

    def __len__(self) -> int:
        return len(self.data)


class _Container:
    """Nesting depth, and whether it is part of another value (then it is finished: whoever changes it makes a loop)."""

    __slots__ = ()
    depth: int
    sealed: bool


class Mapping(dict[Any, Any], _Container):
    """A dict of the file."""

    __slots__ = ("depth", "sealed")

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.sealed = 1, False


class Sequence(list[Any], _Container):
    """A list of the file."""

    __slots__ = ("depth", "sealed")

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.sealed = 1, False


class Group(set[Any], _Container):
    """A set of the file."""

    __slots__ = ("depth", "sealed")

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.sealed = 1, False


class DeepTuple(tuple[Any, ...]):
    """A tuple that holds containers."""

    depth: int


class Record(_Container):
    """An object of the file that was not built: ``name`` of its class and ``state``, its attributes."""

    __slots__ = ("depth", "name", "sealed", "state")

    def __init__(self, name: str, state: Mapping | None = None) -> None:
        self.name, self.state = name, state
        self.depth = 1 if state is None else state.depth + 1
        self.sealed = False

    @property
    def class_name(self) -> str:
        """The class name without its module."""
        return self.name.rpartition(".")[2]

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute."""
        return default if self.state is None else self.state.get(key, default)


class DType:
    """A numpy number type that is being described: its code, and whether its byte order was stated."""

    __slots__ = ("code", "complete")

    def __init__(self, code: str) -> None:
        self.code, self.complete = code, False


class Name:
    """A global of the file that is on the list; it is never looked up."""

    __slots__ = ("entry", "name")

    def __init__(self, name: str, entry: Any) -> None:
        self.name, self.entry = name, entry


@dataclass(frozen=True)
class Storage:
    """Numbers in the file: ``dtype`` in numpy's spelling, ``count`` and the bytes."""

    dtype: str
    count: int
    data: memoryview

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class StoredTensor:
    """A checked view of a storage; nothing is copied until `array` is asked for. ``offset`` and ``strides`` count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """Number type in numpy's spelling."""
        return self.storage.dtype

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous copy."""
        return self.count * self.storage.itemsize

    def view(self) -> np.ndarray:
        """The numbers in place, read-only and possibly not aligned."""
        size = self.storage.itemsize
        strides = tuple(s * size for s in self.strides)
        return np.ndarray(self.shape, self.dtype, self.storage.data, self.offset * size, strides)

    def array(self) -> np.ndarray:
        """A contiguous copy of its own."""
        return np.array(self.view(), order="C", copy=True)


def depth_of(value: Any) -> int:
    """Return how deep a value is nested: 0 for plain ones, 1 for a container of plain ones."""
    if isinstance(value, tuple):
        return value.depth if isinstance(value, DeepTuple) else 1
    return value.depth if isinstance(value, _Container) else 0


def describe(value: Any) -> str:
    """Return a short description that is safe to print whatever the file holds.

    >>> describe(3), describe("x" * 1000)[:8], describe([1, 2])
    ('3', "'xxxxxxx", 'list')
    """
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    if isinstance(value, Record):
        return f"an object of class {describe(value.name)}"
    if isinstance(value, Name):
        return f"the name {value.name}"
    plain_names = {Mapping: "dict", Sequence: "list", Group: "set", DeepTuple: "tuple", Blob: "bytes", StoredTensor: "tensor"}
    return plain_names.get(type(value), type(value).__name__.lower())
