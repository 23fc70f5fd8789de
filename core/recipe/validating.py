"""Nodes to typed values: each thing wrong becomes a problem with its place, and reading goes on, so that all are
reported together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import PriorzooError, nearest_name
from ..schedule import KINDS, UNITS, Schedule, Steps, schedule_from_plain
from .annotations import (
    REQUIRED,
    FieldSpec,
    allows_null,
    bare,
    bounds,
    choices,
    describe_annotation,
    fit,
    is_numeric,
    is_whole,
    members,
    metadata,
    model_fields,
    section_of,
    takes_schedule,
    within,
)
from .nodes import Node
from .problems import Problem, join, unknown_name
from .reading import describe

M = TypeVar("M", bound=BaseModel)
Reader = Callable[[Node, str], Any]

# A number that a schedule reaches; the other fields are positions and rates.
_VALUES = ("start", "end", "values")
_TRUTH = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


class _Invalid:
    """What a key that has a problem is read as."""


INVALID = _Invalid()


class Validator:
    """Reads nodes by annotations and collects what is wrong in ``problems``."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def report(self, problem: Problem) -> _Invalid:
        self.problems.append(problem)
        return INVALID

    def section(self, model: type[M], node: Node, key: str, readers: Mapping[str, Reader] | None = None) -> M | _Invalid:
        """Read a section of the schema; ``readers`` replace the annotation's rule for some of its keys."""
        values = self.fields(model_fields(model), node, key, readers=readers)
        if isinstance(values, _Invalid):
            return values
        try:
            return model(**values)
        except ValidationError as error:
            return self.report(Problem(node.origin, key, error.errors()[0]["msg"], describe(node)))

    def fields(
        self,
        specs: Mapping[str, FieldSpec],
        node: Node,
        key: str,
        *,
        readers: Mapping[str, Reader] | None = None,
        others: bool = False,
        schedules: bool = False,
    ) -> dict[str, Any] | _Invalid:
        """Read the keys of a mapping; absent ones and those removed by null are left out.

        ``others`` lets unknown keys through; ``schedules`` lets any number follow one.
        """
        if not node.is_mapping:
            return self.report(Problem(node.origin, key, "not a mapping", describe(node), f"a mapping of {', '.join(specs)}"))
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, child in node.value.items():
            if name in specs:
                continue
            if others:
                values[name] = child.plain()
            else:
                self.report(unknown_name(child.key_origin, join(key, name), "unknown key", name, specs))
        for name, spec in specs.items():
            inner, place = node.child(name), join(key, name)
            if inner is None or (inner.value is None and not allows_null(spec.annotation)):
                if spec.default is REQUIRED:
                    got = "nothing" if inner is None else f"null (at {inner.origin})"
                    where = node.key_origin if inner is None else inner.origin
                    self.report(Problem(where, place, "missing", got, describe_annotation(spec.annotation)))
                continue
            reader = (readers or {}).get(name)
            read = reader(inner, place) if reader else self.value(spec, inner, place, schedules)
            values[name] = read
        return values if len(self.problems) == before else INVALID

    def value(self, spec: FieldSpec, node: Node, key: str, schedules: bool = False) -> Any:
        """Read one value by its annotation: a section, a schedule, or a scalar or collection of scalars."""
        section = section_of(spec.annotation)
        if node.value is None and allows_null(spec.annotation):
            return None
        if section is not None:
            return self.section(section, node, key)
        scheduled = takes_schedule(spec.annotation) or (schedules and is_numeric(spec.annotation))
        if scheduled and node.is_mapping:
            return self.schedule(spec, node, key, whole=schedules and is_whole(spec.annotation))
        try:
            read = fit(node.plain(), spec.annotation, spec.finite)
        except ValueError as error:
            return self.report(self._misfit(spec, node, key, scheduled, str(error)))
        return in_folder(read, spec.annotation, node)

    def _misfit(self, spec: FieldSpec, node: Node, key: str, scheduled: bool, reason: str) -> Problem:
        allowed = describe_annotation(spec.annotation)
        if scheduled and "schedule" not in allowed:
            allowed += " or a schedule"
        words = choices(spec.annotation)
        near = nearest_name(node.value, words) if isinstance(node.value, str) else None
        text, kinds = "not allowed", [bare(part) for part in members(spec.annotation)]
        if isinstance(node.value, str) and bool in kinds and node.value.lower() in _TRUTH:
            near = _TRUTH[node.value.lower()]
        elif isinstance(node.value, float) and node.value.is_integer() and int in kinds and float not in kinds:
            text, near = "whole numbers have no point and no exponent", str(int(node.value))
        elif reason == "cannot be written in a recipe" or reason.startswith("not a"):
            text = reason
        return Problem(node.origin, key, text, describe(node), allowed, near)

    def schedule(self, spec: FieldSpec, node: Node, key: str, *, whole: bool = False) -> Schedule | _Invalid:
        """Read a mapping as a schedule whose values keep the annotation's bounds; ``whole``: and are whole numbers throughout."""
        kind = node.child("kind")
        if kind is None or kind.value not in list(KINDS):
            if kind is None:
                return self.report(Problem(node.origin, join(key, "kind"), "missing: a mapping here is a schedule", "nothing",
                                           "one of " + ", ".join(KINDS)))  # fmt: skip
            return self.report(unknown_name(kind.origin, join(key, "kind"), "unknown schedule", str(kind.plain()), KINDS))
        if whole and kind.value != Steps.kind:
            text = "a whole number changes in steps: between its ends this schedule has values that are not whole"
            return self.report(Problem(kind.origin, join(key, "kind"), text, repr(kind.value), Steps.kind))
        before, known = len(self.problems), [f.name for f in dataclass_fields(KINDS[kind.value])]
        limits = bounds(spec.annotation)
        for name, child in node.value.items():
            place = join(key, name)
            if name == "kind":
                continue
            if name not in known:
                self.report(unknown_name(child.key_origin, place, f"unknown field of a {kind.value} schedule", name, known))
            elif name == "unit":
                if child.value not in UNITS:
                    self.report(unknown_name(child.origin, place, "unknown unit", str(child.plain()), UNITS))
            else:
                self._schedule_numbers(name, child, place, limits, whole)
        if len(self.problems) > before:
            return INVALID
        try:
            return schedule_from_plain(node.plain())
        except PriorzooError as error:
            return self.report(Problem(node.origin, key, str(error), describe(node)))

    def _schedule_numbers(self, name: str, node: Node, key: str, limits: list[Any], whole: bool) -> None:
        numbers = node.value if isinstance(node.value, list) else [node]
        wanted = "a list of numbers" if name in ("values", "at_positions") else "a number"
        listed = isinstance(node.value, list) == (name in ("values", "at_positions"))
        plain = [n.plain() for n in numbers]
        if not listed or not all(isinstance(n, (int, float)) and not isinstance(n, bool) and n == n for n in plain):
            self.report(Problem(node.origin, key, "not allowed", describe(node), wanted))
        elif name in _VALUES and not all(within(n, limits) for n in plain):
            allowed = describe_annotation(fitting_number(limits))
            self.report(Problem(node.origin, key, "a value of the schedule is out of range", describe(node), allowed))
        elif name in _VALUES and whole and not all(isinstance(n, int) for n in plain):
            self.report(Problem(node.origin, key, "a value of the schedule is not a whole number", describe(node), "a list of integers"))


def fitting_number(limits: list[Any]) -> Any:
    """Return the annotation of a number with these bounds."""
    from typing import Annotated

    return Annotated[(float, *limits)] if limits else float


def in_folder(value: Any, annotation: Any, node: Node) -> Any:
    """Return paths as absolute ones: a relative path starts from the folder of the file that mentions it."""
    from .schema import InRecipeFolder

    def marked(part: Any) -> bool:
        return bare(part) is Path or any(m is InRecipeFolder or isinstance(m, InRecipeFolder) for m in metadata(part))

    kinds = members(annotation)
    if isinstance(value, (str, Path)) and any(marked(part) for part in kinds):
        path = absolute(str(value), node)
        return path if any(bare(part) is Path for part in kinds) else str(path)
    return value


def absolute(text: str, node: Node) -> Path:
    """Return the absolute path of a text that stands at this node: relative ones start from the folder of the recipe file.

    In shipped recipes they start from the current folder: what they name are files that users bring.
    """
    from .composing import SHIPPED

    folder = Path.cwd() if node.origin.folder.is_relative_to(SHIPPED) else node.origin.folder
    return (folder / Path(text).expanduser()).resolve()
