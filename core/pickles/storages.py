"""Storages inside a pickle, and the tensors that are views of them.

A storage is a blob of its own: four pickles of protocol 2 (magic number, version, system facts, a persistent id that describes it),
the pickled list of its key, the number of elements as 64 bits, and the numbers in little-endian order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .values import Blob, Mapping, Name, Refusal, Storage, StoredTensor, describe

if TYPE_CHECKING:
    from .machine import Machine

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001
STORAGE_TYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "|i1",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_LOCATION = re.compile(r"cpu|cuda(:\d{1,4})?")
_MOST_DIMENSIONS = 8


def _allowed() -> Any:
    from .names import AllowList, Entry

    return AllowList("a tensor's storage", {("torch", name): Entry() for name in STORAGE_TYPES})


def read_storage(machine: Machine, blob: Blob) -> Storage:
    """Read a nested storage; wherever its numbers lay (``cuda:0``), they are read as the file has them."""
    described: list[tuple[str, str, int]] = []

    def persistent(given: Any) -> str:
        described.append(_description(given))
        return "storage"

    inner = machine.nested(blob, _allowed(), persistent)
    if inner.load() != MAGIC:
        raise Refusal("nested storage: the magic number is wrong")
    if inner.load() != VERSION:
        raise Refusal(f"nested storage: only version {VERSION} is known")
    facts = inner.load()
    if not isinstance(facts, Mapping) or facts.get("little_endian") is not True:
        raise Refusal("nested storage: not written on a little-endian system")
    if inner.load() != "storage" or len(described) != 1:
        raise Refusal("nested storage: holds something else than one storage")
    dtype, key, count = described[0]
    keys = inner.load()
    if keys != [key]:
        raise Refusal("nested storage: its list of keys does not name the storage")
    return _numbers(blob.data[inner.position :], dtype, count)


def _description(given: Any) -> tuple[str, str, int]:
    match given:
        case ("storage", Name() as kind, str(key), str(location), int(count), None) if not isinstance(count, bool):
            if not _LOCATION.fullmatch(location):
                raise Refusal(f"storage location {describe(location)}; known are cpu and cuda:N")
            if count < 0:
                raise Refusal(f"a storage of {count} elements")
            return STORAGE_TYPES[kind.name.removeprefix("torch.")], key, count
    raise Refusal("a persistent id that does not describe a storage")


def _numbers(rest: memoryview, dtype: str, count: int) -> Storage:
    if len(rest) < 8:
        raise Refusal("nested storage: truncated before its numbers")
    stated = int.from_bytes(rest[:8], "little", signed=True)
    data = rest[8:]
    if stated != count:
        raise Refusal(f"nested storage: described with {count} elements, stored with {stated}")
    storage = Storage(dtype, count, data)
    if len(data) != count * storage.itemsize:
        raise Refusal(f"nested storage: {count} elements need {count * storage.itemsize} bytes, {len(data)} are there")
    return storage


def rebuild_tensor(arguments: tuple[Any, ...]) -> StoredTensor:
    """A tensor as a view of a storage: (storage, offset, sizes, strides, requires gradient, no hooks[, no metadata])."""
    match arguments:
        case (Storage() as storage, int(offset), tuple() as shape, tuple() as strides, bool(), Mapping() as hooks, *more):
            if hooks or len(more) > 1 or (more and more[0] not in (None, {})):
                raise Refusal("a tensor with hooks or metadata")
            return _view(storage, offset, shape, strides)
    raise Refusal("a tensor is a storage, an offset, sizes, strides, a truth value and no hooks")


def _view(storage: Storage, offset: int, shape: tuple[Any, ...], strides: tuple[Any, ...]) -> StoredTensor:
    numbers = (offset, *shape, *strides)
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 48 for n in numbers):
        raise Refusal("a tensor's offset, sizes and strides are non-negative integers")
    if len(shape) != len(strides) or len(shape) > _MOST_DIMENSIONS:
        raise Refusal(f"a tensor with {len(shape)} sizes and {len(strides)} strides (at most {_MOST_DIMENSIONS})")
    tensor = StoredTensor(storage, offset, shape, strides)
    if tensor.count == 0:
        raise Refusal("a tensor without elements")
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if last >= storage.count:
        raise Refusal(f"a tensor reaches element {last} of a storage of {storage.count}")
    if tensor.count > storage.count:
        raise Refusal(f"a tensor of {tensor.count} elements repeats those of a storage of {storage.count}")
    return tensor
