"""Hostile checkpoints, each with the reason it must be refused for: opcodes, names, nested storages, tensors, structure.

What would be run if anything were run is ``os.system`` and the like; the tests watch for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from official_pickles import official, small_pair, state_of
from pickle_writer import Call, Persistent, Shared, Stored, dumps, storage_blob


@dataclass(frozen=True)
class Case:
    """``make`` returns the file's bytes; ``reason`` is searched in the error's text."""

    name: str
    make: Callable[[], bytes]
    reason: str


def text(value: str) -> bytes:
    """Return the opcode of a short text."""
    data = value.encode()
    return b"\x8c" + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    """Return the opcodes of a global."""
    return text(module) + text(attribute) + b"\x93"


def opcodes(*parts: bytes, protocol: int = 4) -> bytes:
    """Return a pickle of these opcodes."""
    return b"\x80" + bytes([protocol]) + b"".join(parts) + b"."


SYSTEM = name("os", "system")
RUN = text("echo run > hostile_was_here") + b"\x85R"
ORDERED = name("collections", "OrderedDict")


def tensor(
    blob: bytes | None = None, offset: Any = 0, shape: Any = (4,), strides: Any = (1,), hooks: Any = None, more: tuple[Any, ...] = ()
) -> bytes:
    """Return a pickled tensor of four numbers, changed as told."""
    storage = Call("torch.storage", "_load_from_bytes", (blob if blob is not None else floats(),))
    no_hooks = Call("collections", "OrderedDict")
    return dumps({"w": Call("torch._utils", "_rebuild_tensor_v2", (storage, offset, shape, strides, False, hooks or no_hooks, *more))})


def floats(count: int = 4, **change: Any) -> bytes:
    """Return a nested storage of four floats that says it has ``count``."""
    kind, location = change.pop("kind", "FloatStorage"), change.pop("location", "cpu")
    return storage_blob(struct.pack("<4f", 1, 2, 3, 4), kind, count, location, **change)


def number(
    code: Any = "f8", flags: tuple[Any, Any] = (False, True), state: Any = (3, "<", None, None, None, -1, -1, 0), data: bytes = b"\0" * 8
) -> bytes:
    """Return a pickled numpy number."""
    return dumps(Call("numpy.core.multiarray", "scalar", (Call("numpy", "dtype", (code, *flags), state), data)))


def persistent(**change: Any) -> bytes:
    """Return a pickled object with source text, changed as told."""
    given = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "A", "state": {}} | change
    return dumps(Call("torch_utils.persistence", "_reconstruct_persistent_obj", (given,)))


# fmt: off
OPCODES = [
    Case("a dict that holds itself", lambda: opcodes(b"}\x94", text("k"), b"h\x00s"), "recursive structure"),
    Case("a list inside its own tuple", lambda: opcodes(b"]\x94", b"h\x00\x85a"), "recursive structure"),
    Case("a dict changed after it was used", lambda: opcodes(b"}\x94", b"h\x00\x85\x94", b"h\x00", text("k"), b"Ns\x86"), "recursive structure"),
    Case("an object that is its own attribute", lambda: opcodes(name("training.triplane", "OSGDecoder"), b")\x81\x94}", text("a"), b"h\x00sb"), "recursive structure"),
    Case("BUILD on a tensor", lambda: tensor()[:-2] + b"}b" + b"u.", "BUILD on tensor: only objects have a state"),
    Case("BUILD on a dict", lambda: opcodes(b"}}b"), "BUILD on dict: only objects"),
    Case("BUILD twice", lambda: opcodes(name("training.triplane", "OSGDecoder"), b")\x81}b}b"), "has a state already"),
    Case("BUILD with slots", lambda: opcodes(name("training.triplane", "OSGDecoder"), b")\x81N}\x86b"), "BUILD with tuple"),
    Case("EXT1", lambda: opcodes(b"\x82\x01"), r"opcode EXT1 \(0x82\) is not allowed"),
    Case("EXT2", lambda: opcodes(b"\x83\x01\x00"), r"opcode EXT2 \(0x83\) is not allowed"),
    Case("EXT4", lambda: opcodes(b"\x84\x01\x00\x00\x00"), r"opcode EXT4 \(0x84\) is not allowed"),
    Case("PERSID", lambda: opcodes(b"Pfile\n"), r"opcode PERSID \(0x50\) is not allowed"),
    Case("BINPERSID outside of a storage", lambda: opcodes(text("x"), b"Q"), "a persistent id outside"),
    Case("DUP", lambda: opcodes(b"]2a"), r"opcode DUP \(0x32\) is not allowed"),
    Case("INST", lambda: opcodes(b"(", text("x"), b"ios\nsystem\n"), r"opcode INST .* is not allowed"),
    Case("OBJ", lambda: opcodes(b"(", ORDERED, b"o"), r"opcode OBJ .* is not allowed"),
    Case("NEWOBJ_EX", lambda: opcodes(ORDERED, b")}\x92"), r"opcode NEWOBJ_EX .* is not allowed"),
    Case("NEXT_BUFFER", lambda: opcodes(b"\x97", protocol=5), r"opcode NEXT_BUFFER .* is not allowed"),
    Case("BYTEARRAY8", lambda: opcodes(b"\x96" + struct.pack("<Q", 1 << 40), protocol=5), r"opcode BYTEARRAY8 .* is not allowed"),
    Case("a digit text for an integer", lambda: opcodes(b"L" + b"9" * 10_000 + b"L\n"), r"opcode LONG \(0x4c\) is not allowed"),
    Case("an opcode that does not exist", lambda: opcodes(b"\xff"), r"opcode 0xff \(unknown\)"),
    Case("huge LONG4", lambda: opcodes(b"\x8b\xff\xff\xff\x7f"), "oversized integer: 2147483647 bytes"),
    Case("LONG4 of negative length", lambda: opcodes(b"\x8b\xff\xff\xff\xff"), "oversized integer"),
    Case("huge LONG1", lambda: opcodes(b"\x8a\xff" + b"\x7f" * 255), "oversized integer: 255 bytes, at most 16"),
    Case("huge BINBYTES", lambda: opcodes(b"B\xff\xff\xff\xff"), "truncated: 4294967295 bytes are needed"),
    Case("huge BINBYTES8", lambda: opcodes(b"\x8e" + struct.pack("<Q", 1 << 60)), "truncated: 1152921504606846976 bytes are needed"),
    Case("huge BINUNICODE8", lambda: opcodes(b"\x8d" + struct.pack("<Q", 1 << 60)), "oversized text"),
    Case("a name without end", lambda: opcodes(b"c" + b"a" * 100_000, protocol=2), "no line end within 256 bytes"),
    Case("text that is not text", lambda: opcodes(b"\x8c\x02\xff\xfe"), "text that is not UTF-8"),
    Case("a memo entry that nobody wrote", lambda: opcodes(b"h\x07"), "memo entry 7 was never written"),
    Case("an empty stack", lambda: opcodes(b"R"), "the stack is empty"),
    Case("reaching below a mark", lambda: opcodes(ORDERED, b"()R"), "the stack is empty"),
    Case("a tuple without a mark", lambda: opcodes(b"t"), "no mark is open"),
    Case("two values at the end", lambda: opcodes(b"NN"), "ends with 2 values"),
    Case("an open mark at the end", lambda: opcodes(b"N(N"), "1 open marks"),
    Case("items of a tensor", lambda: tensor()[:-2] + b"(" + text("k") + b"Nu" + b"u.", "items are added to tensor"),
    Case("a key without value", lambda: opcodes(b"}(Nu"), "a key without a value"),
    Case("a tuple for a key", lambda: opcodes(b"}", b"N\x85", b"Ns"), "neither text nor a small integer: tuple"),
    Case("a large integer for a key", lambda: opcodes(b"}", b"\x8a\x08" + b"\x01" * 8, b"Ns"), "neither text nor a small integer"),
    Case("a tuple in a set", lambda: opcodes(b"\x8f(N\x85\x90"), "a set element that is neither"),
    Case("very deep nesting", lambda: opcodes(b")" + b"\x85" * 100_000), "nested more than 100 deep"),
    Case("more operations than any checkpoint", lambda: opcodes(b"]" * 400_000), "more than 200000 operations"),
    Case("a frame beyond the end", lambda: opcodes(b"\x95" + struct.pack("<Q", 1 << 50)), "a frame of 1125899906842624 bytes"),
    Case("protocol 0", lambda: b"cos\nsystem\n(S'echo run'\ntR.", "not a pickle of protocol 2 or later"),
    Case("protocol 9", lambda: opcodes(b"N", protocol=9), "pickle protocol 9; 2 to 5"),
]

NAMES = [
    Case("os.system", lambda: opcodes(SYSTEM, RUN), "names os.system, which an EG3D checkpoint may not name"),
    Case("eval of protocol 2", lambda: opcodes(b"c__builtin__\neval\n", RUN, protocol=2), "names __builtin__.eval"),
    Case("a name behind an allowed one", lambda: opcodes(name("torch.storage", "_load_from_bytes.__globals__"), RUN), r"names torch.storage._load_from_bytes.__globals__"),
    Case("torch.load", lambda: opcodes(name("torch", "load"), RUN), "names torch.load"),
    Case("an array of objects", lambda: opcodes(name("numpy._core.multiarray", "_reconstruct")), "names numpy._core.multiarray._reconstruct"),
    Case("a module that is no text", lambda: opcodes(b"N", text("system"), b"\x93"), "whose module or name is not text"),
    Case("a call of a dict", lambda: opcodes(b"})R"), "calls dict, which cannot be called"),
    Case("a call of a class", lambda: opcodes(name("training.triplane", "OSGDecoder"), b")R"), "cannot be called here"),
    Case("an object of a function", lambda: opcodes(name("torch._utils", "_rebuild_parameter"), b")\x81"), "is no class on the list"),
    Case("an object with arguments", lambda: opcodes(name("training.triplane", "OSGDecoder"), b"N\x85\x81"), "with arguments; none are expected"),
    Case("arguments that are no tuple", lambda: opcodes(ORDERED, b"]R"), "with list for arguments"),
    Case("an OrderedDict of a generator", lambda: opcodes(ORDERED, b"]\x85R"), "collections.OrderedDict: called with arguments"),
    Case("encoding by another codec", lambda: dumps(Call("_codecs", "encode", ("x", "zlib"))), "_codecs.encode: called with something else"),
    Case("encoding text again and again", lambda: dumps([Call("_codecs", "encode", ("x" * 5000, "latin1"))] * 50), "they exceed the file"),
    Case("a device of its own", lambda: dumps(Call("torch", "device", ("meta",))), "a device is 'cpu' or 'cuda'"),
]

STORAGES = [
    Case("a nested storage that names os.system", lambda: tensor(opcodes(SYSTEM, RUN, protocol=4)), "names os.system, which a tensor's storage may not name"),
    Case("a nested storage in a nested storage", lambda: tensor(opcodes(name("torch.storage", "_load_from_bytes"))), "names torch.storage._load_from_bytes, which a tensor's storage"),
    Case("a nested storage that BUILDs", lambda: tensor(opcodes(b"}}b", protocol=2)), "BUILD on dict: only objects"),
    Case("a nested storage with EXT", lambda: tensor(opcodes(b"\x82\x01", protocol=2)), r"opcode EXT1 \(0x82\) is not allowed"),
    Case("a nested storage that holds itself", lambda: tensor(opcodes(b"]\x94", b"h\x00a")), "recursive structure"),
    Case("a persistent id that names a file", lambda: tensor(floats().replace(b"storage", b"openfil")), "a persistent id that does not describe a storage"),
    Case("a wrong magic number", lambda: tensor(floats(magic=7)), "the magic number is wrong"),
    Case("another version of storages", lambda: tensor(floats(version=1002)), "only version 1001"),
    Case("a big-endian storage", lambda: tensor(floats(facts={"little_endian": False})), "not written on a little-endian system"),
    Case("a storage of a foreign type", lambda: tensor(floats(kind="Tensor")), "names torch.Tensor"),
    Case("a storage on a disk", lambda: tensor(floats(location="file:x")), "storage location 'file:x'"),
    Case("another key in the list", lambda: tensor(floats(keys=["8"])), "its list of keys"),
    Case("more elements described than stored", lambda: tensor(floats(5, stated=4)), "described with 5 elements, stored with 4"),
    Case("more elements than bytes", lambda: tensor(floats(1 << 40, stated=1 << 40)), "1099511627776 elements need 4398046511104 bytes, 16 are there"),
    Case("fewer elements than bytes", lambda: tensor(floats(3)), "3 elements need 12 bytes, 16 are there"),
    Case("a negative number of elements", lambda: tensor(floats(-1)), "a storage of -1 elements"),
    Case("a storage cut short", lambda: tensor(floats()[:-20]), "truncated before its numbers"),
    Case("a storage that is no pickle", lambda: tensor(b"\0" * 64), "not a pickle of protocol 2"),
    Case("an empty storage", lambda: tensor(b""), "truncated: 1 bytes are needed, 0 are left"),
    Case("one storage read a thousand times", lambda: opcodes(name("torch.storage", "_load_from_bytes"), b"\x94", b"B" + struct.pack("<I", len(floats())), floats(), b"\x94", b"h\x00h\x01\x85R\x94" * 10_000), "more than 200000 operations"),
]

TENSORS = [
    Case("a stride beyond the storage", lambda: tensor(shape=(2, 2), strides=(3, 1)), "reaches element 4 of a storage of 4"),
    Case("an offset beyond the storage", lambda: tensor(offset=1), "reaches element 4 of a storage of 4"),
    Case("a negative stride", lambda: tensor(strides=(-1,)), "non-negative integers"),
    Case("a negative offset", lambda: tensor(offset=-1), "non-negative integers"),
    Case("one element a million million times", lambda: tensor(shape=(1 << 20, 1 << 20), strides=(0, 0)), "of 1099511627776 elements repeats"),
    Case("sizes beyond any memory", lambda: tensor(shape=(1 << 62,), strides=(1,)), "non-negative integers"),
    Case("sizes without strides", lambda: tensor(shape=(2, 2), strides=(1,)), "2 sizes and 1 strides"),
    Case("nine dimensions", lambda: tensor(shape=(1,) * 9, strides=(1,) * 9), "9 sizes"),
    Case("no elements", lambda: tensor(shape=(0,)), "a tensor without elements"),
    Case("a hook", lambda: tensor(hooks={"run": "me"}), "a tensor with hooks or metadata"),
    Case("metadata", lambda: tensor(more=({"run": "me"},)), "a tensor with hooks or metadata"),
    Case("a text for a storage", lambda: dumps(Call("torch._utils", "_rebuild_tensor_v2", ("x", 0, (1,), (1,), False, {}))), "a tensor is a storage"),
    Case("a parameter of nothing", lambda: dumps(Call("torch._utils", "_rebuild_parameter", (None, False, {}))), "a parameter is a tensor"),
    Case("an array's objects", lambda: number("O8"), "number type 'O8' is not one of"),
    Case("a record type", lambda: number("V8"), "number type 'V8' is not one of"),
    Case("a number type that copies", lambda: number(flags=(True, True)), "is described by its code, False and True"),
    Case("a number type with fields", lambda: number(state=(3, "|", None, ("a",), {"a": None}, 8, 1, 16)), "a state of its own"),
    Case("a number type of the other byte order", lambda: number(state=(3, ">", None, None, None, -1, -1, 0)), "another byte order"),
    Case("a number of a million bytes", lambda: number(data=b"\0" * 1_000_000), "has 8 bytes, got 1000000"),
    Case("a number type alone", lambda: number(state=None), "without its byte order"),
]

OBJECTS = [
    Case("source text under another key", lambda: persistent(hook="run"), "expected the keys class_name, module_src, state, type, version"),
    Case("a function with source text", lambda: persistent(type="function"), "only classes of version 6"),
    Case("a later version", lambda: persistent(version=7), "version 7; only classes of version 6"),
    Case("a class name with control characters", lambda: persistent(class_name="A\x1b[2J"), r"class name 'A\\x1b\[2J'"),
    Case("a state that is no dict", lambda: persistent(state=[]), "the state of A is list"),
]

# fmt: on


@cache
def _small() -> Any:
    return small_pair()


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """Return an official file of a small model after a change of what it holds."""
    checkpoint = official(*_small())
    change(checkpoint)
    return dumps(checkpoint)


def doubled(leaf: Any, levels: int, pair: Callable[[Any, Any], Any]) -> Any:
    """Return a value that holds one value twice, which holds one twice, and so on; each is written once."""
    for _ in range(levels):
        once = Shared(leaf)
        leaf = pair(once, once)
    return leaf


def holder(first: Any, second: Any) -> Persistent:
    """Return a module with two submodules."""
    return Persistent("A", {"_parameters": {}, "_buffers": {}, "_modules": {"a": first, "b": second}})


def again_and_again(checkpoint: dict[str, Any]) -> None:
    """Give a network the same tensor under many names."""
    once = Shared(Stored(torch.zeros(16_384)))
    state_of(checkpoint, "G")["_buffers"].update({f"b{i}": once for i in range(20)})


LEAF = Persistent("A", {"_parameters": {}, "_buffers": {}, "_modules": {}})


# fmt: off
STRUCTURE = [
    Case("truncated in the middle", lambda: (lambda d: d[: len(d) // 2])(changed(lambda c: None)), "truncated: "),
    Case("truncated before the last byte", lambda: changed(lambda c: None)[:-1], "truncated: the file ends where an opcode is expected"),
    Case("bytes after the end", lambda: changed(lambda c: None) + b"cos\nsystem\n", "11 bytes follow the end"),
    Case("an empty file", lambda: b"", "the file is empty"),
    Case("a zip", lambda: b"PK\x03\x04" + b"\0" * 100, "a zip archive"),
    Case("a text", lambda: b"version https://git-lfs.github.com/spec/v1\n", "not a pickle of protocol 2 or later"),
    Case("a list of networks", lambda: dumps([1, 2]), "the networks G, D and G_ema is expected, the file holds list"),
    Case("no average", lambda: changed(lambda c: c.pop("G_ema")), "the file holds D, G, augment_pipe, training_set_kwargs"),
    Case("a text for a parameter", lambda: changed(lambda c: state_of(c, "G", "backbone", "mapping", "fc0")["_parameters"].update(weight="x")), r"backbone.mapping.fc0: _parameters\['weight'\] is 'x', a tensor is expected"),
    Case("a text for a module", lambda: changed(lambda c: state_of(c, "G", "backbone")["_modules"].update(mapping="x")), r"_modules\['mapping'\] is 'x', a module is expected"),
    Case("an object that is no module", lambda: changed(lambda c: state_of(c, "D", "b4").pop("_buffers")), "b4: an object of class 'DiscriminatorEpilogue' without _buffers"),
    Case("modules that unfold without end", lambda: changed(lambda c: state_of(c, "G")["_modules"].update(again=doubled(LEAF, 24, holder))), "unfold to more than 20000"),
    Case("values that unfold without end", lambda: changed(lambda c: state_of(c, "D")["_init_kwargs"].update(again=doubled(1, 24, lambda a, b: [a, b]))), "unfold to more than 20000"),
    Case("tensors that unfold without end", lambda: changed(again_and_again), "unfold to more bytes than the file has"),
]
# fmt: on

CASES = OPCODES + NAMES + STORAGES + TENSORS + OBJECTS + STRUCTURE
