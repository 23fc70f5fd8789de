"""Allow-lists: the globals that a family's files may name, each with the function of ours that answers in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .storages import read_storage, rebuild_tensor
from .values import Blob, DType, Group, Mapping, Record, Refusal, Sequence, describe

if TYPE_CHECKING:
    from .machine import Machine

Call = Callable[["Machine", tuple[Any, ...]], Any]


@dataclass(frozen=True)
class Entry:
    """How a name is answered: ``call`` when it is called with arguments, ``new`` when an object of it is made."""

    call: Call | None = None
    new: Callable[[], Any] | None = None


@dataclass(frozen=True)
class AllowList:
    """``title`` says whose list it is ("an EG3D checkpoint"); ``entries`` are keyed by (module, name).

    ``packages``: whatever these and the modules in them name and the list has not is a class whose objects become records.
    """

    title: str
    entries: dict[tuple[str, str], Entry]
    packages: tuple[str, ...] = ()

    def find(self, module: str, name: str) -> Entry | None:
        """Return the entry, or None for what is not on the list."""
        entry = self.entries.get((module, name))
        if entry is None and name.isidentifier() and any(f"{module}.".startswith(f"{package}.") for package in self.packages):
            return inert_class(module, name)[module, name]
        return entry


def inert_class(module: str, name: str) -> dict[tuple[str, str], Entry]:
    """Return the entry of a class whose objects become records."""
    return {(module, name): Entry(new=lambda: Record(f"{module}.{name}"))}


def _empty_dict(machine: Machine, arguments: tuple[Any, ...]) -> Mapping:
    if arguments:
        raise Refusal("called with arguments; none are expected")
    return Mapping()


def _set(machine: Machine, arguments: tuple[Any, ...]) -> Group:
    group = Group()
    match arguments:
        case ():
            return group
        case (Sequence() as items,):
            machine.stack.append(group)
            machine.add(list(items))
            machine.pop()
            return group
    raise Refusal("called with something else than one list")


def _encode(machine: Machine, arguments: tuple[Any, ...]) -> Blob:
    # Protocol 2 has no bytes: they are written as text and this call.
    match arguments:
        case (str(text), "latin1"):
            machine.spent.decoded_bytes += len(text)
            if machine.spent.decoded_bytes > len(machine.data):
                raise Refusal("the same text is turned into bytes so often that they exceed the file")
            try:
                return Blob(memoryview(text.encode("latin1")), machine.base + machine.position)
            except UnicodeEncodeError:
                raise Refusal("text that is not Latin-1") from None
    raise Refusal("called with something else than text and 'latin1'")


NUMPY_CODES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "b1")


def _dtype(machine: Machine, arguments: tuple[Any, ...]) -> DType:
    match arguments:
        case (str(code), False, True):
            if code not in NUMPY_CODES:
                raise Refusal(f"number type {describe(code)} is not one of {', '.join(NUMPY_CODES)}")
            return DType(code)
    raise Refusal("a number type is described by its code, False and True")


def _scalar(machine: Machine, arguments: tuple[Any, ...]) -> float | int | bool:
    match arguments:
        case (DType() as kind, Blob() as data):
            if not kind.complete:
                raise Refusal("a number type without its byte order")
            number = np.dtype("<" + kind.code)
            if len(data) != number.itemsize:
                raise Refusal(f"a number of type {kind.code} has {number.itemsize} bytes, got {len(data)}")
            value: float | int | bool = np.frombuffer(data.data, number)[0].item()
            return value
    raise Refusal("a number is a type and its bytes")


def _load_from_bytes(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    match arguments:
        case (Blob() as blob,):
            return read_storage(machine, blob)
    raise Refusal("called with something else than bytes")


def _rebuild_tensor(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    return rebuild_tensor(arguments)


def _rebuild_parameter(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    from .values import StoredTensor

    match arguments:
        case (StoredTensor() as tensor, bool(), Mapping() as hooks) if not hooks:
            return tensor
    raise Refusal("a parameter is a tensor, a truth value and no hooks")


def _device(machine: Machine, arguments: tuple[Any, ...]) -> str:
    match arguments:
        case (("cpu" | "cuda") as kind,):
            return str(kind)
        case (("cpu" | "cuda") as kind, int(index)):
            return f"{kind}:{index}"
    raise Refusal("a device is 'cpu' or 'cuda' and an index")


def _persistent_object(machine: Machine, arguments: tuple[Any, ...]) -> Record:
    """An object that carries the source text of its class: the text is ignored, the state becomes a record."""
    if len(arguments) != 1 or not isinstance(arguments[0], Mapping):
        raise Refusal("called with something else than one dict")
    given = arguments[0]
    wanted = {"type", "version", "module_src", "class_name", "state"}
    if set(given) != wanted:
        raise Refusal(f"expected the keys {', '.join(sorted(wanted))}; got {', '.join(describe(k) for k in list(given)[:8])}")
    if given["type"] != "class" or given["version"] != 6:
        raise Refusal(f"type {describe(given['type'])}, version {describe(given['version'])}; only classes of version 6 are known")
    name, state = given["class_name"], given["state"]
    if not isinstance(name, str) or not name.isidentifier() or len(name) > machine.limits.name_bytes:
        raise Refusal(f"class name {describe(name)}")
    if not isinstance(state, Mapping):
        raise Refusal(f"the state of {name} is {describe(state)}, a dict is expected")
    machine.spent.classes[name] = None
    return Record(name, state)


ALL_TENSORS: dict[tuple[str, str], Entry] = {
    ("collections", "OrderedDict"): Entry(call=_empty_dict),
    ("torch._utils", "_rebuild_tensor_v2"): Entry(call=_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): Entry(call=_rebuild_parameter),
    ("torch.storage", "_load_from_bytes"): Entry(call=_load_from_bytes),
    ("torch", "device"): Entry(call=_device),
    ("numpy", "dtype"): Entry(call=_dtype),
    ("numpy._core.multiarray", "scalar"): Entry(call=_scalar),  # numpy 2
    ("numpy.core.multiarray", "scalar"): Entry(call=_scalar),  # numpy 1
    ("_codecs", "encode"): Entry(call=_encode),
    ("__builtin__", "set"): Entry(call=_set),  # protocol 2
    ("builtins", "set"): Entry(call=_set),  # protocol 3
}
"""What any pickled module of torch needs: tensors, numbers, plain containers."""

PERSISTENT_CLASSES: dict[tuple[str, str], Entry] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): Entry(call=_persistent_object),
    ("dnnlib.util", "EasyDict"): Entry(call=_empty_dict, new=Mapping),
}
"""What checkpoints of the StyleGAN line add: objects that carry their source text, and a dict of their own."""
