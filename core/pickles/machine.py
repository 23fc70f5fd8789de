"""The pickle machine: an interpreter of the few opcodes that checkpoints need, on inert values.

Python's own unpickler is not used: what an opcode may do is decided here, opcode by opcode, and everything else is refused. Nothing
that a file names is looked up, imported or called; a name is only a key of the allow-list, whose entries are functions of this package.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .values import Blob, DeepTuple, DType, Group, Limits, Mapping, Name, PickleError, Record, Refusal, Sequence, Spent, depth_of, describe

if TYPE_CHECKING:
    from .names import AllowList

_RECURSIVE = "a recursive structure: a container is changed after it became part of another value, or of itself"
_FINISHED = (Mapping, Sequence, Group, Record)


class Machine:
    """Reads one pickle from ``data`` at ``position``; ``base`` is the offset of ``data`` in the file, for messages.

    ``persistent`` answers persistent ids; without it they are refused. Nested pickles share ``spent``.
    """

    def __init__(
        self,
        data: memoryview,
        names: AllowList,
        where: str,
        *,
        base: int = 0,
        limits: Limits | None = None,
        spent: Spent | None = None,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.data, self.names, self.where, self.base = data, names, where, base
        self.limits, self.spent, self.persistent = limits or Limits(), spent or Spent(), persistent
        self.position = 0
        self._opcode_at = 0
        self.stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    # ------------------------------------------------------------------------------------------------ running

    def load(self) -> Any:
        """Run from ``position`` to STOP, return the value and leave ``position`` behind it; raises PickleError."""
        self.stack, self._below, self._memo = [], [], {}
        self._opcode_at = self.position
        try:
            if self._take(1)[0] != 0x80:
                raise Refusal("not a pickle of protocol 2 or later (it does not begin with the opcode PROTO)")
            self._protocol()
            data, spent, most, end = self.data, self.spent, self.limits.operations, len(self.data)
            while True:
                at = self._opcode_at = self.position
                spent.operations += 1
                if spent.operations > most:
                    raise Refusal(f"more than {most} operations")
                if at >= end:
                    raise Refusal("truncated: the file ends where an opcode is expected")
                code = data[at]
                self.position = at + 1
                if code == 0x2E:
                    return self._stop()
                operation = OPERATIONS.get(code)
                if operation is None:
                    raise Refusal(f"opcode {_opcode_name(code)} is not allowed: no checkpoint of this kind needs it")
                operation(self)
        except Refusal as refusal:
            raise PickleError(self.where, self.base + self._opcode_at, str(refusal), self.spent.classes) from None

    def _stop(self) -> Any:
        if len(self.stack) != 1 or self._below:
            raise Refusal(f"the pickle ends with {len(self.stack)} values and {len(self._below)} open marks; one value is expected")
        return self.stack[0]

    def nested(self, blob: Blob, names: AllowList, persistent: Callable[[Any], Any] | None = None) -> Machine:
        """Return a machine for a pickle inside this one."""
        return Machine(
            blob.data, names, self.where, base=blob.start, limits=self.limits, spent=self.spent, persistent=persistent
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------------ bytes

    def _take(self, count: int) -> memoryview:
        begin, end = self.position, self.position + count
        if end > len(self.data):
            raise Refusal(f"truncated: {count} bytes are needed, {len(self.data) - begin} are left")
        self.position = end
        return self.data[begin:end]

    def _unsigned(self, count: int) -> int:
        return int.from_bytes(self._take(count), "little")

    def _line(self) -> str:
        begin = self.position
        piece = bytes(self.data[begin : begin + self.limits.name_bytes + 1])
        length = piece.find(b"\n")
        if length < 0:
            raise Refusal("truncated or oversized name: no line end within " + str(self.limits.name_bytes) + " bytes")
        self.position = begin + length + 1
        return _text(piece[:length])

    def text(self, size_bytes: int) -> None:
        """Push a string whose length stands in ``size_bytes`` bytes."""
        length = self._unsigned(size_bytes)
        if length > self.limits.text_bytes:
            raise Refusal(f"oversized text: {length} bytes, at most {self.limits.text_bytes} are allowed")
        self.stack.append(_text(self._take(length)))

    def blob(self, size_bytes: int) -> None:
        """Push bytes whose length stands in ``size_bytes`` bytes; they stay in the file."""
        length = self._unsigned(size_bytes)
        begin = self.position + self.base
        self.stack.append(Blob(self._take(length), begin))

    def long(self, size_bytes: int) -> None:
        """Push an integer whose length stands in ``size_bytes`` bytes."""
        length = self._unsigned(size_bytes)
        if length > self.limits.integer_bytes:
            raise Refusal(f"oversized integer: {length} bytes, at most {self.limits.integer_bytes} are allowed")
        self.stack.append(int.from_bytes(self._take(length), "little", signed=True))

    def push_unsigned(self, size_bytes: int) -> None:
        """Push an unsigned integer of so many bytes."""
        self.stack.append(self._unsigned(size_bytes))

    def push_signed(self) -> None:
        """Push a signed integer of four bytes."""
        self.stack.append(int.from_bytes(self._take(4), "little", signed=True))

    def push_float(self) -> None:
        """Push a double."""
        self.stack.append(struct.unpack(">d", self._take(8))[0])

    # ------------------------------------------------------------------------------------------------ stack and memo

    def pop(self) -> Any:
        """Take the top value; values below an open mark are out of reach."""
        if not self.stack:
            raise Refusal("the stack is empty: an operation needs a value that was never written")
        return self.stack.pop()

    def top(self) -> Any:
        """Return the top value."""
        if not self.stack:
            raise Refusal("the stack is empty: an operation needs a value that was never written")
        return self.stack[-1]

    def mark(self) -> None:
        """Open a mark."""
        self._below.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[Any]:
        """Close the last mark and return what was above it."""
        if not self._below:
            raise Refusal("no mark is open")
        items, self.stack = self.stack, self._below.pop()
        return items

    def memoize(self, index: int | None = None) -> None:
        """Remember the top value."""
        self._memo[len(self._memo) if index is None else index] = self.top()

    def recall(self, size_bytes: int) -> None:
        """Push a remembered value."""
        index = self._unsigned(size_bytes)
        if index not in self._memo:
            raise Refusal(f"memo entry {index} was never written")
        self.stack.append(self._memo[index])

    # ------------------------------------------------------------------------------------------------ containers

    def _inside(self, value: Any) -> int:
        """Seal a value that becomes part of another, and return its depth."""
        if isinstance(value, _FINISHED):
            value.sealed = True
        depth = depth_of(value)
        if depth >= self.limits.depth:
            raise Refusal(f"nested more than {self.limits.depth} deep")
        return depth

    def put_tuple(self, items: list[Any]) -> None:
        """Push a tuple."""
        depth = max((self._inside(item) for item in items), default=0)
        if depth == 0:
            self.stack.append(tuple(items))
            return
        deep = DeepTuple(items)
        deep.depth = depth + 1
        self.stack.append(deep)

    def take_tuple(self, count: int) -> None:
        """Push a tuple of the top values."""
        items = [self.pop() for _ in range(count)]
        self.put_tuple(items[::-1])

    def _changing(self, kind: type[Mapping] | type[Sequence] | type[Group], items: list[Any]) -> Any:
        target = self.top()
        if not isinstance(target, kind):
            raise Refusal(f"items are added to {describe(target)}, a {describe(kind())} is expected")
        depth = max((self._inside(item) for item in items), default=0) + 1
        if target.sealed:
            raise Refusal(_RECURSIVE)
        target.depth = max(target.depth, depth)
        return target

    def append(self, items: list[Any]) -> None:
        """Add values to the list on top."""
        self._changing(Sequence, items).extend(items)

    def add(self, items: list[Any]) -> None:
        """Add values to the set on top."""
        for item in items:
            _check_key(item, "set element")
        self._changing(Group, items).update(items)

    def set_items(self, items: list[Any]) -> None:
        """Add keys and values to the dict on top."""
        if len(items) % 2:
            raise Refusal("a key without a value")
        for key in items[::2]:
            _check_key(key, "key")
        self._changing(Mapping, items[1::2]).update(zip(items[::2], items[1::2], strict=True))

    # ------------------------------------------------------------------------------------------------ names and objects

    def put_name(self, module: Any, name: Any) -> None:
        """Push a global of the allow-list."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise Refusal("a global whose module or name is not text")
        entry = self.names.find(module, name)
        if entry is None:
            raise Refusal(f"names {describe(module)[1:-1]}.{describe(name)[1:-1]}, which {self.names.title} may not name; refused unseen")
        self.stack.append(Name(f"{module}.{name}", entry))

    def reduce(self) -> None:
        """Answer a call with the allow-list's own function."""
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Name) or called.entry.call is None:
            raise Refusal(f"calls {describe(called)}, which cannot be called here")
        if not isinstance(arguments, tuple):
            raise Refusal(f"calls {called.name} with {describe(arguments)} for arguments")
        try:
            self.stack.append(called.entry.call(self, arguments))
        except Refusal as refusal:
            raise Refusal(f"{called.name}: {refusal}") from None

    def new_object(self) -> None:
        """Make an inert object of a class on the allow-list."""
        arguments, called = self.pop(), self.pop()
        if not isinstance(called, Name) or called.entry.new is None:
            raise Refusal(f"makes an object of {describe(called)}, which is no class on the list")
        if arguments != ():
            raise Refusal(f"makes an object of {called.name} with arguments; none are expected")
        self.stack.append(called.entry.new())

    def build(self) -> None:
        """Give an inert object its state."""
        state, target = self.pop(), self.top()
        if isinstance(target, DType):
            if state != (3, "<", None, None, None, -1, -1, 0) and state != (3, "|", None, None, None, -1, -1, 0):
                raise Refusal("a numpy number type with a state of its own (fields, alignment or another byte order)")
            target.complete = True
            return
        if not isinstance(target, Record):
            raise Refusal(f"BUILD on {describe(target)}: only objects have a state")
        if target.state is not None:
            raise Refusal(f"BUILD on {describe(target)}, which has a state already")
        if not isinstance(state, Mapping):
            raise Refusal(f"BUILD with {describe(state)}: the state of an object is a dict of its attributes")
        depth = self._inside(state) + 1
        if target.sealed:
            raise Refusal(_RECURSIVE)
        target.state, target.depth = state, depth

    def persistent_id(self) -> None:
        """Answer a persistent id, where this pickle may hold any."""
        if self.persistent is None:
            raise Refusal("a persistent id outside of a tensor's storage")
        self.stack.append(self.persistent(self.pop()))

    def frame(self) -> None:
        """Check a frame's length; frames have no other meaning here."""
        length = self._unsigned(8)
        if length > len(self.data) - self.position:
            raise Refusal(f"truncated: a frame of {length} bytes, {len(self.data) - self.position} are left")

    def _protocol(self) -> None:
        version = self._take(1)[0]
        if not 2 <= version <= 5:
            raise Refusal(f"pickle protocol {version}; 2 to 5 are allowed")


def _check_key(key: Any, what: str) -> None:
    # Tuples as keys would be hashed deeply, large integers can be chosen to collide.
    if not (isinstance(key, str) or (isinstance(key, int) and -(1 << 31) <= key < 1 << 31)):
        raise Refusal(f"a {what} that is neither text nor a small integer: {describe(key)}")


def _text(data: bytes | memoryview) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        raise Refusal("text that is not UTF-8") from None


def _opcode_name(code: int) -> str:
    known = next((op for op in pickletools.opcodes if op.code == chr(code)), None)
    return f"{known.name} (0x{code:02x})" if known else f"0x{code:02x} (unknown)"


def _pushes(value: Any) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(value)


OPERATIONS: dict[int, Callable[[Machine], None]] = {
    0x80: lambda m: m._protocol(),
    0x95: lambda m: m.frame(),
    # plain values
    ord("N"): _pushes(None),
    0x88: _pushes(True),
    0x89: _pushes(False),
    ord("J"): lambda m: m.push_signed(),
    ord("K"): lambda m: m.push_unsigned(1),
    ord("M"): lambda m: m.push_unsigned(2),
    0x8A: lambda m: m.long(1),
    0x8B: lambda m: m.long(4),
    ord("G"): lambda m: m.push_float(),
    0x8C: lambda m: m.text(1),
    ord("X"): lambda m: m.text(4),
    0x8D: lambda m: m.text(8),
    ord("C"): lambda m: m.blob(1),
    ord("B"): lambda m: m.blob(4),
    0x8E: lambda m: m.blob(8),
    # memo and marks
    ord("q"): lambda m: m.memoize(m._unsigned(1)),
    ord("r"): lambda m: m.memoize(m._unsigned(4)),
    0x94: lambda m: m.memoize(),
    ord("h"): lambda m: m.recall(1),
    ord("j"): lambda m: m.recall(4),
    ord("("): lambda m: m.mark(),
    # containers
    ord(")"): _pushes(()),
    0x85: lambda m: m.take_tuple(1),
    0x86: lambda m: m.take_tuple(2),
    0x87: lambda m: m.take_tuple(3),
    ord("t"): lambda m: m.put_tuple(m.to_mark()),
    ord("}"): lambda m: m.stack.append(Mapping()),
    ord("]"): lambda m: m.stack.append(Sequence()),
    0x8F: lambda m: m.stack.append(Group()),
    ord("a"): lambda m: m.append([m.pop()]),
    ord("e"): lambda m: m.append(m.to_mark()),
    0x90: lambda m: m.add(m.to_mark()),
    ord("s"): lambda m: m.set_items([m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: m.set_items(m.to_mark()),
    # names and objects
    ord("c"): lambda m: m.put_name(m._line(), m._line()),
    0x93: lambda m: m.put_name(*[m.pop(), m.pop()][::-1]),
    ord("R"): lambda m: m.reduce(),
    0x81: lambda m: m.new_object(),
    ord("b"): lambda m: m.build(),
    ord("Q"): lambda m: m.persistent_id(),
}
"""What each allowed opcode does; STOP is handled by `Machine.load`."""
