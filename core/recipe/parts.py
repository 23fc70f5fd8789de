"""Registered parts in a recipe: names known, options checked against the class without building anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..errors import PriorzooError
from ..registry import Registry
from ..schedule import Cosine, Linear, Schedule, Steps, value_at
from .annotations import FieldSpec, fit, model_fields, option_fields
from .nodes import Node
from .problems import Problem, join, unknown_name
from .reading import describe
from .schema import Part, PriorEntry
from .validating import INVALID, Validator, _Invalid
from .writing import plain_value

ENTRY_KEYS = ("name", "weight", "interval", "phase")


def read_part(validator: Validator, registry: Registry, node: Node, key: str, hidden: tuple[str, ...] = ()) -> Part | _Invalid:
    """Read ``{name: ..., option: value}``; ``hidden`` arguments are the program's to give."""
    cls = _registered(validator, registry, node, key)
    if cls is None:
        return INVALID
    options = _options(validator, cls, node.without("name"), key, keys=("name", *hidden))
    return INVALID if isinstance(options, _Invalid) else Part(name=node.value["name"].value, options=options)


def read_prior(validator: Validator, registry: Registry, node: Node, key: str, siblings: list[str]) -> PriorEntry | _Invalid:
    """Read an entry of ``priors``: the options of its prior beside ``name weight interval phase``."""
    cls = _registered(validator, registry, node, key, siblings)
    if cls is None:
        return INVALID
    specs = {name: spec for name, spec in model_fields(PriorEntry).items() if name in ENTRY_KEYS}
    own = Node({k: v for k, v in node.value.items() if k in ENTRY_KEYS}, node.origin, node.key_origin)
    entry = validator.fields(specs, own, key)
    options = _options(validator, cls, node.without(*ENTRY_KEYS), key, keys=ENTRY_KEYS, schedules=True)
    if isinstance(entry, _Invalid) or isinstance(options, _Invalid):
        return INVALID
    return PriorEntry(**entry, options=options)


def _registered(validator: Validator, registry: Registry, node: Node, key: str, siblings: list[str] | None = None) -> type[Any] | None:
    names = registry.names()
    if not node.is_mapping:
        example = f"a mapping with a name, such as {{name: {names[0] if names else 'NAME'}}}"
        validator.report(Problem(node.origin, key, "not a mapping", describe(node), example))
        return None
    name = node.child("name")
    if name is None or name.value is None:
        # An override or a variant with a misspelt entry makes an entry of its own: the nearest entry is what was meant.
        last = key.rpartition(".")[2]
        near = unknown_name(node.origin, "", "", last, [s for s in siblings or [] if s != last]).nearest
        where = node.key_origin if name is None else name.origin
        validator.report(Problem(where, join(key, "name"), "missing", "nothing", ", ".join(names), near))
        return None
    if name.value in names:
        return registry.get(name.value)
    reason = registry.refusal(str(name.plain()))
    if reason:
        validator.report(Problem(name.origin, join(key, "name"), f"refused: {reason}", repr(name.plain()), ", ".join(names)))
        return None
    broken = registry.broken().get(str(name.plain()))
    text = f"comes from a plug-in that failed to import ({broken})" if broken else f"not registered in {registry.kind}"
    validator.report(unknown_name(name.origin, join(key, "name"), text, str(name.plain()), names))
    return None


def _options(
    validator: Validator, cls: type, node: Node, key: str, *, keys: tuple[str, ...], schedules: bool = False
) -> dict[str, Any] | _Invalid:
    """Read the options of a class; the defaults of those left out are written in."""
    specs, others = option_fields(cls)
    specs = {name: spec for name, spec in specs.items() if name not in keys}
    before = len(validator.problems)
    for name, child in node.value.items():
        if name not in specs and not others:
            allowed = [*keys, *specs]
            validator.report(unknown_name(child.key_origin, join(key, name), f"unknown option of {cls.__name__}", name, allowed))
    known = node if others else Node({k: v for k, v in node.value.items() if k in specs}, node.origin, node.key_origin)
    values = validator.fields(specs, known, key, others=others, schedules=schedules)
    if isinstance(values, _Invalid) or len(validator.problems) > before:
        return INVALID
    # In the order of the signature, whatever the order in the file.
    ordered = {name: values[name] if name in values else _default(spec) for name, spec in specs.items()}
    ordered |= {name: value for name, value in values.items() if name not in ordered}
    return {name: value for name, value in ordered.items() if _writable(value)}


def _default(spec: FieldSpec) -> Any:
    """Return the default as reading it back would: 200 for a float is 200.0."""
    try:
        return fit(plain_value(spec.default), spec.annotation)
    except (ValueError, TypeError):
        return spec.default


def _writable(value: Any) -> bool:
    """Whether a default can stand in a recipe; others stay with the class."""
    from enum import Enum
    from os import PathLike

    if isinstance(value, Mapping):
        return all(isinstance(k, str) and _writable(v) for k, v in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(_writable(child) for child in value)
    return value is None or isinstance(value, (bool, int, float, str, Schedule, Enum, PathLike))


def starting_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with every schedule at its first value."""
    return {k: value_at(v, images=0, steps=0) if isinstance(v, Schedule) else v for k, v in options.items()}


def met_options(options: Mapping[str, Any], batch: int, images: int) -> list[dict[str, Any]]:
    """Return the options as a training of ``images`` meets them: at its start and end, and wherever one of their schedules turns.

    Between these places schedules run monotonously, so what is right at all of them is right throughout.
    """
    schedules = {name: value for name, value in options.items() if isinstance(value, Schedule)}
    turns = {0.0, images / batch}
    for schedule in schedules.values():
        turns.update(p / (batch if schedule.unit == "images" else 1) for p in _turns(schedule) if math.isfinite(p))
    met: list[dict[str, Any]] = []
    for step in sorted({max(0, math.ceil(turn)) for turn in turns}):
        now = {**options, **{name: value_at(s, images=step * batch, steps=step) for name, s in schedules.items()}}
        if not met or now != met[-1]:
            met.append(now)
    return met


def _turns(schedule: Schedule) -> tuple[float, ...]:
    if isinstance(schedule, Steps):
        return tuple(schedule.at_positions)
    return (schedule.begin, schedule.until) if isinstance(schedule, (Linear, Cosine)) else ()


def refusal(error: Exception, node: Node, key: str, what: str) -> Problem:
    """Return the problem of a class that refused its options, placed at the first option that its message names."""
    import re

    text = str(error) if isinstance(error, PriorzooError) else f"{what}: {type(error).__name__}: {error}"
    words = re.findall(r"\w+", text)
    named = [name for name in node.value if name in words and name != "name"] if node.is_mapping else []
    if not named:
        return Problem(node.key_origin, key, text, describe(node))
    child = node.value[named[0]]
    return Problem(child.origin, join(key, named[0]), text, describe(child))
