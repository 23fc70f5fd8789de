"""Real arrays out of a MATLAB level-5 file (what scipy.io.savemat writes), by its public description.

A reader of our own, because a damaged file makes scipy's stop the whole program.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator

import numpy as np

from ...core.errors import DataError

HEADER = 128
LARGEST = 1 << 26  # bytes of one variable, inflated; poses are a few kilobytes
_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NUMERIC_CLASSES = range(6, 16)  # double, single and the whole numbers
_COMPLEX = 0x0800


class _Damaged(Exception):
    pass


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """The (type, content) of the data elements one after the other."""
    place = 0
    while place < len(data):
        if place + 8 > len(data):
            raise _Damaged("ends within a tag")
        kind, size = struct.unpack_from(order + "II", data, place)
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size, start, after = kind & 0xFFFF, kind >> 16, place + 4, place + 8
        else:
            start = place + 8
            after = start + size if kind == _COMPRESSED else start + -(-size // 8) * 8
        if start + size > len(data):
            raise _Damaged("ends within an element")
        yield kind, data[start : start + size]
        place = after


def _inflated(data: bytes) -> bytes:
    try:
        unpacker = zlib.decompressobj()
        out = unpacker.decompress(data, LARGEST)
    except zlib.error as error:
        raise _Damaged(str(error)) from error
    if not unpacker.eof:
        raise _Damaged("a compressed variable is cut short or larger than 64 MiB")
    return out


def _numbers(kind: int, data: bytes, order: str) -> np.ndarray:
    if kind not in _NUMBERS:
        raise _Damaged(f"numbers of unknown type {kind}")
    form = np.dtype(_NUMBERS[kind]).newbyteorder("<" if order == "<" else ">")
    if len(data) % form.itemsize:
        raise _Damaged("half a number")
    return np.frombuffer(data, form)


def _variable(data: bytes, order: str, wanted: set[str]) -> tuple[str, np.ndarray] | None:
    """Name and value of one matrix, None for one that is not wanted or holds no real numbers."""
    parts = _elements(data, order)
    try:
        (flag_kind, flags), (size_kind, sizes), (_, raw_name) = next(parts), next(parts), next(parts)
        name = raw_name.decode("latin-1")
        if name not in wanted:
            return None
        word = int(_numbers(flag_kind, flags, order)[0])
        if word & 0xFF not in _NUMERIC_CLASSES or word & _COMPLEX:
            return None
        value = _numbers(*next(parts), order).astype(np.float64)
    except (StopIteration, IndexError) as error:
        raise _Damaged("a variable lacks its parts") from error
    shape = [int(n) for n in _numbers(size_kind, sizes, order)]
    if min(shape, default=0) < 0 or int(np.prod([float(n) for n in shape])) != value.size:
        raise _Damaged(f"{name} holds {value.size} numbers, its shape is {shape}")
    return name, value.reshape(shape, order="F")


def read_mat(where: str, data: bytes, names: Iterable[str]) -> dict[str, np.ndarray]:
    """The arrays of these names, float64, as far as the file holds them.

    Args:
        where: the file, for messages.
        data: its bytes.

    Raises:
        DataError: damaged, or of another version.
    """
    mark = data[126:128]
    if data[:10] == b"MATLAB 7.3" or data[:8] == b"\x89HDF\r\n\x1a\n":
        raise DataError(f"{where}: is a MATLAB 7.3 file (HDF5); save it with version 7 or older, as scipy.io.savemat does")
    if len(data) < HEADER or mark not in (b"IM", b"MI"):
        raise DataError(f"{where}: is no readable .mat file (level 5, as scipy.io.savemat writes)")
    order, wanted = "<" if mark == b"IM" else ">", set(names)
    found: dict[str, np.ndarray] = {}
    try:
        for kind, content in _elements(data[HEADER:], order):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_inflated(content), order), (0, b""))
            variable = _variable(content, order, wanted) if kind == _MATRIX else None
            if variable is not None:
                found[variable[0]] = variable[1]
    except _Damaged as error:
        raise DataError(f"{where}: is no readable .mat file ({error})") from error
    return found
