"""YAML text to a tree of Nodes: the line of every key and value is kept, duplicate keys are errors, nothing is executed.

Anchors, aliases, merge keys (``<<``) and tags are refused: ``extends`` and variants are the one way to share settings, and a value
then has one place.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from .nodes import Node
from .problems import InvalidRecipe, Origin, Problem, join
from .scalars import read_scalar

MAX_DEPTH = 40


def read_file(path: Path, shown: str) -> Node:
    """Read a recipe file; ``shown`` is its name in messages. Raises InvalidRecipe with file and line."""
    origin = Origin(shown, 0, path.parent)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRecipe([Problem(origin, "", f"not UTF-8 text: {error.reason} at byte {error.start}")]) from error
    except OSError as error:
        raise InvalidRecipe([Problem(origin, "", f"cannot be read: {error.strerror}")]) from error
    node = read_text(text, origin)
    if not node.is_mapping:
        got = "an empty file" if node.value is None else describe(node)
        raise InvalidRecipe([Problem(node.origin, "", "a recipe is a mapping of keys", got, "keys and values")])
    return node


def read_text(text: str, origin: Origin, *, lines: bool = True) -> Node:
    """Read one YAML document; ``lines=False`` gives every value the same place (an override has no lines)."""
    builder = _Builder(origin, lines)
    try:
        builder.events = list(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = builder.origin_at(mark.line if mark else 0)
        begin = f" that begins in line {error.context_mark.line + 1}" if error.context_mark and lines else ""
        context = f" ({error.context}{begin})" if error.context else ""
        raise InvalidRecipe([Problem(place, "", f"not YAML: {error.problem}{context}")]) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n")
        raise InvalidRecipe([Problem(builder.origin_at(line), "", f"not YAML: {error.reason}")]) from error
    node = builder.document()
    if builder.problems:
        raise InvalidRecipe(builder.problems)
    return node


def describe(node: Node) -> str:
    """Return a value as messages show it."""
    if isinstance(node.value, dict):
        return f"a mapping ({', '.join(node.value)})" if node.value else "an empty mapping"
    return "null" if node.value is None else repr(node.plain())


class _Builder:
    """Walks PyYAML's events; written by hand because its composer drops duplicate keys' lines and follows aliases."""

    def __init__(self, origin: Origin, lines: bool) -> None:
        self.base, self.lines = origin, lines
        self.events: list[Any] = []
        self.position = 0
        self.problems: list[Problem] = []

    def origin_at(self, line: int) -> Origin:
        return replace(self.base, line=line + 1) if self.lines else self.base

    def origin_of(self, event: Any) -> Origin:
        return self.origin_at(event.start_mark.line)

    def next(self) -> Any:
        event = self.events[self.position]
        self.position += 1
        return event

    def document(self) -> Node:
        self.next()  # stream start
        if isinstance(self.next(), yaml.StreamEndEvent):
            return Node(None, self.origin_at(0), self.origin_at(0))
        node = self.value("", None, 0)
        self.next()  # document end
        after = self.next()
        if not isinstance(after, yaml.StreamEndEvent):
            self.problem(after, "", "a recipe is one YAML document", "a second document")
        return node

    def problem(self, event: Any, key: str, text: str, got: str = "", allowed: str = "") -> None:
        self.problems.append(Problem(self.origin_of(event), key, text, got, allowed))

    def value(self, key: str, key_origin: Origin | None, depth: int) -> Node:
        event = self.next()
        origin = self.origin_of(event)
        if depth > MAX_DEPTH:
            raise InvalidRecipe([*self.problems, Problem(origin, key, f"nested deeper than {MAX_DEPTH} levels")])
        if isinstance(event, yaml.AliasEvent):
            self.problem(event, key, "aliases are not read: use extends or variants", f"*{event.anchor}", "a value")
            return Node(None, origin, key_origin or origin)
        if event.anchor:
            self.problem(event, key, "anchors are not read: use extends or variants", f"&{event.anchor}", "a value")
        if event.tag is not None:
            self.problem(event, key, "tags are not read", f"{event.tag}", "a plain value")
        if isinstance(event, yaml.MappingStartEvent):
            return Node(self.mapping(key, depth), origin, key_origin or origin)
        if isinstance(event, yaml.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(self.events[self.position], yaml.SequenceEndEvent):
                items.append(self.value(join(key, str(len(items))), None, depth + 1))
            self.next()
            return Node(items, origin, key_origin or origin)
        return Node(event.value if event.style else read_scalar(event.value), origin, key_origin or origin)

    def mapping(self, key: str, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not isinstance(self.events[self.position], yaml.MappingEndEvent):
            event = self.events[self.position]
            if not isinstance(event, yaml.ScalarEvent):
                self.problem(event, key, "keys are text", "a mapping, list or alias as a key", "text")
                self.value(key, None, depth + 1)
                self.value(key, None, depth + 1)
                continue
            self.next()
            name, place = event.value, self.origin_of(event)
            if event.anchor or event.tag is not None:
                self.problem(event, join(key, name), "anchors and tags are not read", "one at a key", "a plain key")
            if name == "<<" and not event.style:
                self.problem(event, join(key, name), "merge keys are not read: use extends or variants", "'<<'", "a plain key")
            child = self.value(join(key, name), place, depth + 1)
            if name in children:
                first = children[name].key_origin
                self.problem(event, join(key, name), f"duplicate key, first given at {first}", f"{name!r} twice", "one")
            children.setdefault(name, child)
        self.next()
        return children
