"""From the record of a pickled torch module to named tensors, and from its attributes to plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError
from .values import Group, Limits, Mapping, Record, Sequence, StoredTensor, describe


@dataclass
class Tally:
    """What has been unfolded of a file whose parts may be shared: modules, and bytes of tensors (at most the file's)."""

    most_bytes: int
    most_modules: int = Limits.modules
    modules: int = 0
    bytes: int = 0

    def module(self, where: str) -> None:
        """Count a module; raises CheckpointError above the limit."""
        self.modules += 1
        if self.modules > self.most_modules:
            raise CheckpointError(f"{where}: shared modules unfold to more than {self.most_modules}")

    def tensor(self, tensor: StoredTensor, where: str) -> None:
        """Count a tensor; raises CheckpointError above the limit."""
        self.bytes += tensor.nbytes
        if self.bytes > self.most_bytes:
            raise CheckpointError(f"{where}: shared tensors unfold to more bytes than the file has")


def named_tensors(record: Record, where: str, tally: Tally) -> dict[str, StoredTensor]:
    """Return what ``state_dict`` of the module would: parameters, persistent buffers, then the submodules', with dotted names.

    Raises CheckpointError naming the module that is not one.
    """
    return dict(_walk(record, "", where, tally))


def _walk(record: Record, prefix: str, where: str, tally: Tally) -> Iterator[tuple[str, StoredTensor]]:
    path = f"{where}: {prefix.rstrip('.') or record.class_name}"
    tally.module(path)
    transient = record.get("_non_persistent_buffers_set", Group())
    for group in ("_parameters", "_buffers"):
        for name, value in _part(record, group, path).items():
            if value is None or (group == "_buffers" and name in transient):
                continue
            if not isinstance(value, StoredTensor):
                raise CheckpointError(f"{path}: {group}[{describe(name)}] is {describe(value)}, a tensor is expected")
            tally.tensor(value, path)
            yield f"{prefix}{name}", value
    for name, child in _part(record, "_modules", path).items():
        if child is None:
            continue
        if not isinstance(child, Record):
            raise CheckpointError(f"{path}: _modules[{describe(name)}] is {describe(child)}, a module is expected")
        yield from _walk(child, f"{prefix}{name}.", where, tally)


def _part(record: Record, key: str, path: str) -> Mapping:
    found = record.get(key)
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{path}: an object of class {describe(record.name)} without {key}: not a torch module")
    return found


def plain(value: Any, where: str, limits: Limits | None = None) -> Any:
    """Return a copy in dicts, lists and scalars, such as JSON holds; raises CheckpointError for anything else, or for too much."""
    left = [(limits or Limits()).values]

    def copy(part: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise CheckpointError(f"{where}: shared values unfold to more than {(limits or Limits()).values}")
        if part is None or isinstance(part, (bool, int, float, str)):
            return part
        if isinstance(part, Mapping):
            return {str(k): copy(v) for k, v in part.items()}
        if isinstance(part, (Sequence, tuple)):
            return [copy(v) for v in part]
        if isinstance(part, Group):
            return sorted((copy(v) for v in part), key=str)
        raise CheckpointError(f"{where}: {describe(part)} where a plain value is expected")

    return copy(value)
