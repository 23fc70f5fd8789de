"""What an annotation allows: its fields' names, its wording in messages, and whether a plain value fits it.

Values come from YAML, so lists stand for tuples and sets, and an integer is a number; otherwise types are strict.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Len, Lt, MaxLen, MinLen, MultipleOf
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from ..schedule import Schedule

REQUIRED = dataclasses.MISSING
_BOUNDS = {
    Ge: (">=", "ge"),
    Gt: (">", "gt"),
    Le: ("<=", "le"),
    Lt: ("<", "lt"),
    MultipleOf: ("a multiple of", "multiple_of"),
}


@dataclass(frozen=True)
class FieldSpec:
    """One key: its annotation and its default (REQUIRED where there is none); ``finite`` refuses infinities."""

    annotation: Any
    default: Any = REQUIRED
    finite: bool = False


@cache
def model_fields(model: type[BaseModel]) -> dict[str, FieldSpec]:
    """Return the fields of a section of the schema."""
    hints = get_type_hints(model, include_extras=True)
    return {
        name: FieldSpec(hints[name], REQUIRED if info.is_required() else info.get_default(call_default_factory=True), True)
        for name, info in model.model_fields.items()
    }


def option_fields(cls: type) -> tuple[dict[str, FieldSpec], bool]:
    """Return the options that a registered class takes, and whether it takes others too.

    They are the annotated keyword arguments of ``__init__``, those of the next class too where it ends in
    ``**options``; a class that keeps them in a dataclass names it ``Options``.
    """
    kept = getattr(cls, "Options", None)
    if dataclasses.is_dataclass(kept):
        hints = _hints(kept)
        return {f.name: FieldSpec(hints.get(f.name, Any), _field_default(f)) for f in dataclasses.fields(kept) if f.init}, False
    out: dict[str, FieldSpec] = {}
    collects = False
    for owner in cls.__mro__:
        init = owner.__dict__.get("__init__")
        if init is None:
            continue
        if owner is object or owner.__module__.startswith("torch."):
            break
        hints, collects = _hints(init), False
        for name, parameter in list(inspect.signature(init).parameters.items())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                collects = True
            elif parameter.kind is not parameter.VAR_POSITIONAL:
                default = REQUIRED if parameter.default is parameter.empty else parameter.default
                out.setdefault(name, FieldSpec(hints.get(name, Any), default))
        if not collects:
            break
    return out, collects and not out


def _field_default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def _hints(owner: Any) -> dict[str, Any]:
    try:
        return get_type_hints(owner, include_extras=True)
    except (NameError, TypeError, AttributeError):
        # A plug-in that imports its types for checkers only: its options are then checked by name alone.
        return {}


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the annotation itself."""
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for part in get_args(annotation) for inner in members(part))
    if get_origin(annotation) is Annotated and len(members(get_args(annotation)[0])) > 1:
        base, *meta = get_args(annotation)
        return tuple(part if part is type(None) else Annotated[(part, *meta)] for part in members(base))
    return (annotation,)


def bare(annotation: Any) -> Any:
    """Return the annotation without its ``Annotated`` wrapping."""
    return bare(get_args(annotation)[0]) if get_origin(annotation) is Annotated else annotation


def metadata(annotation: Any) -> tuple[Any, ...]:
    """Return what ``Annotated`` adds."""
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def allows_null(annotation: Any) -> bool:
    """Whether null is a value here, and not the removal of the key."""
    return any(bare(part) in (type(None), None, Any) for part in members(annotation))


def is_numeric(annotation: Any) -> bool:
    """Whether a number fits, so that a schedule may stand for it."""
    return any(bare(part) in (int, float) for part in members(annotation))


def is_whole(annotation: Any) -> bool:
    """Whether the only numbers that fit are whole ones."""
    kinds = [bare(part) for part in members(annotation)]
    return int in kinds and float not in kinds


def takes_schedule(annotation: Any) -> bool:
    """Whether the annotation itself names Schedule."""
    return any(inspect.isclass(bare(part)) and issubclass(bare(part), Schedule) for part in members(annotation))


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section model that the annotation names, or None."""
    for part in members(annotation):
        if inspect.isclass(bare(part)) and issubclass(bare(part), BaseModel):
            return bare(part)
    return None


def bounds(annotation: Any) -> list[Any]:
    """Return the bounds of the numeric members."""
    return [m for part in members(annotation) if bare(part) in (int, float) for m in metadata(part) if type(m) in _BOUNDS]


def within(value: float, limits: list[Any]) -> bool:
    """Whether a number keeps all bounds."""
    checks = {Ge: lambda b: value >= b.ge, Gt: lambda b: value > b.gt, Le: lambda b: value <= b.le, Lt: lambda b: value < b.lt,
              MultipleOf: lambda b: value % b.multiple_of == 0}  # fmt: skip
    return all(checks[type(bound)](bound) for bound in limits)


def fit(value: Any, annotation: Any, finite: bool = False) -> Any:
    """Return the plain value as the annotation's type; raises ValueError when it does not fit.

    >>> fit([0, 0.99], tuple[float, float])
    (0.0, 0.99)
    """
    if not _numbers_ok(value, finite):
        raise ValueError("not a finite number" if finite else "not a number")
    adapter = _adapter(annotation)
    try:
        # Strict JSON is exactly the rule wanted: a list may stand for a tuple, an integer for a number, and nothing
        # else.
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"]) from error


@cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    union: Any = Union[tuple(part for part in members(annotation) if not takes_schedule(part))]  # noqa: UP007  known only now
    try:
        return TypeAdapter(union)
    except PydanticUserError as error:
        raise ValueError("cannot be written in a recipe") from error


def _numbers_ok(value: Any, finite: bool) -> bool:
    if isinstance(value, Mapping):
        return all(_numbers_ok(child, finite) for child in value.values())
    if isinstance(value, list):
        return all(_numbers_ok(child, finite) for child in value)
    return not isinstance(value, float) or (math.isfinite(value) if finite else not math.isnan(value))


def choices(annotation: Any) -> list[str]:
    """Return the words that the annotation's Literals and Enums allow."""
    out: list[str] = []
    for part in members(annotation):
        kind = bare(part)
        if get_origin(kind) is Literal:
            out += [str(choice) for choice in get_args(kind)]
        elif inspect.isclass(kind) and issubclass(kind, Enum):
            out += [str(choice.value) for choice in kind]
        else:
            out += [word for inner in get_args(kind) if inner is not Ellipsis for word in choices(inner)]
    return out


_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text", type(None): "null", None: "null", Any: "anything",
          Path: "a path", dict: "a mapping", list: "a list", tuple: "a list"}  # fmt: skip


def describe_annotation(annotation: Any) -> str:
    """Return what is allowed, in words.

    >>> describe_annotation(Annotated[int, Ge(1)] | None)
    'an integer >= 1 or null'
    """
    return " or ".join(dict.fromkeys(_describe(part) for part in members(annotation)))


def _describe(annotation: Any) -> str:
    kind, extras = bare(annotation), [_bound(m) for m in metadata(annotation)]
    origin, inner = get_origin(kind), get_args(kind)
    if kind in _WORDS:
        text = _WORDS[kind]
    elif origin is Literal or (inspect.isclass(kind) and issubclass(kind, Enum)):
        text = "one of " + ", ".join(choices(kind))
    elif origin is tuple and Ellipsis not in inner:
        text = f"a list of {len(inner)} ({', '.join(describe_annotation(i) for i in inner)})"
    elif origin is not None and inspect.isclass(origin) and issubclass(origin, Mapping):
        text = f"a mapping of names to ({describe_annotation(inner[1])})"
    elif origin is not None and inner:
        text = f"a list of ({describe_annotation(inner[0])})"
    elif takes_schedule(kind):
        text = "a schedule"
    else:
        text = getattr(kind, "__name__", str(kind))
    return " ".join([text, *(e for e in extras if e)])


def _bound(mark: Any) -> str:
    if type(mark) in _BOUNDS:
        sign, attribute = _BOUNDS[type(mark)]
        return f"{sign} {getattr(mark, attribute)}"
    if isinstance(mark, (MinLen, Len)) and mark.min_length:
        return f"of at least {mark.min_length}"
    return f"of at most {mark.max_length}" if isinstance(mark, MaxLen) else ""
