"""A recipe's tree: every value keeps where it stands, and where its key stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .problems import Origin, join

# A mapping whose `name` or `kind` differs from what it is merged onto starts anew: the options of another part, or the
# fields of another kind of schedule, mean nothing to it.
IDENTITIES = ("name", "kind")


@dataclass(frozen=True)
class Node:
    """``value`` is a scalar, a dict of Nodes or a list of Nodes; ``key_origin`` is where its key stands (its own place
    at the root).
    """

    value: Any
    origin: Origin
    key_origin: Origin

    @property
    def is_mapping(self) -> bool:
        """Whether it holds keys."""
        return isinstance(self.value, dict)

    def plain(self) -> Any:
        """Return the value without origins."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, *keys: str) -> Node | None:
        """Return the node under these keys, or None."""
        node: Node | None = self
        for key in keys:
            node = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
        return node

    def nearest(self, *keys: str) -> Node:
        """Return the node under these keys, or the deepest one on the way that exists."""
        node = self
        for key in keys:
            inner = node.child(key)
            if inner is None:
                break
            node = inner
        return node

    def without(self, *keys: str) -> Node:
        """Return a copy of this mapping without these keys."""
        return replace(self, value={k: v for k, v in self.value.items() if k not in keys})

    def leaves(self, prefix: str = "") -> Iterator[tuple[str, Node]]:
        """Yield dotted key and node of every value that is not a filled mapping."""
        if isinstance(self.value, dict) and self.value:
            for key, child in self.value.items():
                yield from child.leaves(join(prefix, key))
        else:
            yield prefix, self


def merge(base: Node, over: Node) -> Node:
    """Merge deeply, ``over`` wins: mappings are joined key by key, everything else (lists too) is replaced.

    ``null`` is kept: what it removes is decided when the result is read.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)) or _differ(base, over):
        return over
    joined = dict(base.value)
    for key, child in over.value.items():
        joined[key] = merge(joined[key], child) if key in joined else child
    # Messages about the mapping as a whole point to where it was first written.
    return replace(base, value=joined)


def _differ(base: Node, over: Node) -> bool:
    for key in IDENTITIES:
        old, new = base.child(key), over.child(key)
        if old is not None and new is not None and old.value != new.value:
            return True
    return False


def through(node: Node, name: str) -> Node:
    """Return the tree with ``name`` (of a variant) added to every origin."""
    value = node.value
    if isinstance(value, dict):
        value = {key: through(child, name) for key, child in value.items()}
    elif isinstance(value, list):
        value = [through(child, name) for child in value]
    return Node(value, replace(node.origin, through=name), replace(node.key_origin, through=name))


def tree_from_plain(value: Any, origin: Origin) -> Node:
    """Return the tree of a plain Python value, all of it from one origin."""
    if isinstance(value, Mapping):
        value = {str(key): tree_from_plain(child, origin) for key, child in value.items()}
    elif isinstance(value, (list, tuple)):
        value = [tree_from_plain(child, origin) for child in value]
    return Node(value, origin, origin)
