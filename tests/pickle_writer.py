"""Writes pickles opcode by opcode, with names that this machine need not know and storages as torch nests them."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

SOURCE = 'raise RuntimeError("the source text of a checkpoint was run")\n'
MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_OF = {torch.float32: "FloatStorage", torch.float16: "HalfStorage", torch.float64: "DoubleStorage", torch.int64: "LongStorage"}


@dataclass
class Call:
    """A global called with arguments; ``state`` is given to the result."""

    module: str
    name: str
    arguments: tuple[Any, ...] = ()
    state: Any = None


@dataclass
class Made:
    """An object of a class, with its attributes."""

    module: str
    name: str
    state: dict[str, Any]


@dataclass
class Items:
    """A dict of another class, with its items."""

    module: str
    name: str
    items: dict[Any, Any]


@dataclass
class Stored:
    """A tensor in a blob of its own; ``channels_last`` stores 4-D ones in that order, with the strides that undo it."""

    tensor: Tensor
    parameter: bool = False
    location: str = "cpu"
    channels_last: bool = False


class Shared:
    """A value that several others hold; it is written once and recalled."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Persistent(Call):
    """An object that carries its source text."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        given = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": class_name, "state": state}
        super().__init__("torch_utils.persistence", "_reconstruct_persistent_obj", (given,))


class Writer:
    """Writes one value as a pickle of protocol 2, 3 or 4; strings and globals are remembered, as picklers do."""

    def __init__(self, file: BinaryIO, protocol: int = 4, numpy_module: str = "numpy._core.multiarray") -> None:
        self.file, self.protocol, self.numpy_module = file, protocol, numpy_module
        self.memo: dict[Any, int] = {}
        self.count = 0

    def write(self, value: Any) -> None:
        """Write the whole pickle."""
        self.file.write(b"\x80" + bytes([self.protocol]))
        self.value(value)
        self.file.write(b".")

    def remember(self, key: Any = None) -> None:
        """MEMOIZE, or its form of protocol 2."""
        if key is not None:
            self.memo[key] = self.count
        self.file.write(b"\x94" if self.protocol >= 4 else b"r" + struct.pack("<I", self.count))
        self.count += 1

    def recalled(self, key: Any) -> bool:
        """Write a GET where the value was remembered."""
        if key not in self.memo:
            return False
        index = self.memo[key]
        self.file.write(b"h" + bytes([index]) if index < 256 else b"j" + struct.pack("<I", index))
        return True

    def name(self, module: str, name: str) -> None:
        """Write a global."""
        if self.recalled((module, name)):
            return
        if self.protocol >= 4:
            self.value(module)
            self.value(name)
            self.file.write(b"\x93")
        else:
            self.file.write(f"c{module}\n{name}\n".encode())
        self.remember((module, name))

    def value(self, value: Any) -> None:
        """Write any of the values that checkpoints hold."""
        out = self.file.write
        match value:
            case None:
                out(b"N")
            case bool():
                out(b"\x88" if value else b"\x89")
            case np.float64():
                kind = Call("numpy", "dtype", ("f8", False, True), (3, "<", None, None, None, -1, -1, 0))
                self.value(Call(self.numpy_module, "scalar", (kind, value.tobytes())))
            case int():
                out(
                    b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value) if abs(value) < 1 << 31 else _long(value)
                )
            case float():
                out(b"G" + struct.pack(">d", value))
            case str():
                self.text(value)
            case bytes():
                self.bytes(value)
            case dict():
                out(b"}")
                self.remember()
                self.items(value)
            case list():
                out(b"]")
                self.remember()
                self.many(value, b"e")
            case set():
                self.set(value)
            case tuple():
                self.tuple(value)
            case Call():
                self.name(value.module, value.name)
                self.tuple(value.arguments)
                out(b"R")
                self.remember()
                if value.state is not None:
                    self.value(value.state)
                    out(b"b")
            case Made():
                self.name(value.module, value.name)
                out(b")\x81")
                self.remember()
                self.value(value.state)
                out(b"b")
            case Items():
                self.name(value.module, value.name)
                out(b")\x81")
                self.remember()
                self.items(value.items)
            case Shared():
                if not self.recalled(("shared", id(value))):
                    self.value(value.value)
                    self.remember(("shared", id(value)))
            case Stored():
                self.value(_tensor(value))
            case _:
                raise TypeError(type(value))

    def text(self, value: str) -> None:
        """Write text."""
        if self.recalled(value):
            return
        data = value.encode()
        short = len(data) < 256 and self.protocol >= 4
        self.file.write((b"\x8c" + bytes([len(data)]) if short else b"X" + struct.pack("<I", len(data))) + data)
        self.remember(value)

    def bytes(self, value: bytes) -> None:
        """Write bytes; protocol 2 has none."""
        if self.protocol == 2:
            self.value(Call("_codecs", "encode", (value.decode("latin1"), "latin1")))
            return
        self.file.write(b"C" + bytes([len(value)]) if len(value) < 256 else b"B" + struct.pack("<I", len(value)))
        self.file.write(value)
        self.remember()

    def set(self, value: set[Any]) -> None:
        """Write a set; protocols 2 and 3 call for it."""
        if self.protocol < 4:
            self.value(Call("__builtin__" if self.protocol == 2 else "builtins", "set", (sorted(value),)))
            return
        self.file.write(b"\x8f")
        self.remember()
        self.many(sorted(value), b"\x90")

    def tuple(self, value: tuple[Any, ...]) -> None:
        """Write a tuple."""
        if len(value) > 3:
            self.file.write(b"(")
        for item in value:
            self.value(item)
        self.file.write({0: b")", 1: b"\x85", 2: b"\x86", 3: b"\x87"}.get(len(value), b"t"))

    def many(self, values: list[Any], end: bytes) -> None:
        """Write items between a mark and an opcode."""
        if values:
            self.file.write(b"(")
            for item in values:
                self.value(item)
            self.file.write(end)

    def items(self, value: dict[Any, Any]) -> None:
        """Write a dict's items."""
        self.many([part for item in value.items() for part in item], b"u")


def dumps(value: Any, **how: Any) -> bytes:
    """Return the pickle of a value; ``how`` is Writer's."""
    out = io.BytesIO()
    Writer(out, **how).write(value)
    return out.getvalue()


def _long(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def storage_blob(data: bytes, kind: str, count: int, location: str = "cpu", **change: Any) -> bytes:
    """Return a nested storage; ``change`` replaces one of its pieces: magic, version, facts, key, keys, stated."""
    key = change.get("key", "94023")
    sizes = {"short": 2, "int": 4, "long": 4}
    facts = change.get("facts", {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes})
    described = io.BytesIO()
    writer = Writer(described, 2)
    described.write(b"\x80\x02(")
    writer.value("storage")
    described.write(f"c{change.get('module', 'torch')}\n{kind}\n".encode())
    for value in (key, location, count, None):
        writer.value(value)
    described.write(b"tQ.")
    pieces = [dumps(change.get("magic", MAGIC), protocol=2), dumps(change.get("version", 1001), protocol=2), dumps(facts, protocol=2)]
    pieces += [described.getvalue(), dumps(change.get("keys", [key]), protocol=2)]
    return b"".join(pieces) + struct.pack("<q", change.get("stated", count)) + data


def _tensor(stored: Stored) -> Call:
    tensor = stored.tensor.detach()
    laid = tensor.contiguous(memory_format=torch.channels_last) if stored.channels_last and tensor.ndim == 4 else tensor.contiguous()
    flat = torch.as_strided(laid, (laid.numel(),), (1,))
    blob = storage_blob(flat.numpy().tobytes(), STORAGE_OF[tensor.dtype], tensor.numel(), stored.location)
    storage = Call("torch.storage", "_load_from_bytes", (blob,))
    hooks = Call("collections", "OrderedDict")
    rebuilt = Call("torch._utils", "_rebuild_tensor_v2", (storage, 0, tuple(laid.shape), tuple(laid.stride()), False, hooks))
    if not stored.parameter:
        return rebuilt
    return Call("torch._utils", "_rebuild_parameter", (rebuilt, False, Call("collections", "OrderedDict")))
