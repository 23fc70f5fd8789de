"""A recipe as plain values and as YAML text, in a fixed order; the text read back gives the same recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from ..schedule import Schedule
from .problems import join
from .scalars import write_scalar

if TYPE_CHECKING:
    from .schema import Recipe

OPTIONS = "options"
INDENT = "  "


def plain_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as it would be written: the options of a part stand beside its name."""
    plain: dict[str, Any] = plain_value(recipe)
    for key in ("transforms", "stages", "variants"):
        if not plain[key]:
            del plain[key]
    return plain


def plain_value(value: Any) -> Any:
    """Return dicts, lists and scalars for a section, part, schedule, path or collection."""
    if isinstance(value, BaseModel):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        options = fields.pop(OPTIONS, {})
        return plain_value({**fields, **options})
    if isinstance(value, Schedule):
        return plain_value(value.to_plain())
    if isinstance(value, Mapping):
        return {str(key): plain_value(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(child) for child in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain_value(child) for child in value)
    if isinstance(value, Enum):
        return plain_value(value.value)
    return fspath(value) if isinstance(value, PathLike) else value


def write_yaml(plain: Mapping[str, Any], origin: Callable[[str], str] | None = None) -> str:
    """Return block YAML of plain values; lists of scalars stand on one line; ``origin`` gives each dotted key's
    comment.

    >>> print(write_yaml({"seed": 0, "priors": {"skin": {"region": ["left_eye", "right_eye"], "weight": 5e-05}}}), end="")
    seed: 0
    priors:
      skin:
        region: [left_eye, right_eye]
        weight: 5e-05
    """
    lines: list[tuple[str, str]] = []
    _write_mapping(plain, "", "", lines)
    if origin is None:
        return "".join(f"{text}\n" for text, _ in lines)
    width = min(60, max((len(text) for text, key in lines if key), default=0))
    return "".join(f"{text:<{width}}  # {origin(key)}\n" if key else f"{text}\n" for text, key in lines)


def _write_mapping(mapping: Mapping[str, Any], key: str, indent: str, lines: list[tuple[str, str]]) -> None:
    for name, value in mapping.items():
        # Keys are text, so a key that reads as a number needs no quotes: keys are never resolved.
        label, inner = write_scalar(name), join(key, name)
        if isinstance(value, Mapping) and value:
            lines.append((f"{indent}{label}:", ""))
            _write_mapping(value, inner, indent + INDENT, lines)
        else:
            lines.append((f"{indent}{label}: {_flow(value)}", inner))


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{write_scalar(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(v) for v in value) + "]"
    return write_scalar(value)


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return ``key: old -> new`` for every dotted key that differs.

    >>> difference({"training": {"batch": 8}, "seed": 0}, {"training": {"batch": 16}})
    ['seed: 0 -> (absent)', 'training.batch: 8 -> 16']
    """
    one, two = _flat(old), _flat(new)
    keys = [key for key in (*one, *(k for k in two if k not in one)) if not key.startswith("variants")]
    absent = "(absent)"
    pairs = [(key, one.get(key, absent), two.get(key, absent)) for key in keys]
    return sorted(f"{key}: {before} -> {after}" for key, before, after in pairs if before != after)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for name, child in value.items():
        if isinstance(child, Mapping) and child:
            out.update(_flat(child, join(prefix, name)))
        else:
            out[join(prefix, name)] = _flow(child)
    return out
