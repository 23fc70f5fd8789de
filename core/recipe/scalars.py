"""YAML 1.2 scalars, read and written: the core schema, with ``_`` allowed between the digits of a number.

PyYAML follows YAML 1.1, in which ``5e-5`` is text, ``on`` is true and ``1:30`` is 90. Here ``5e-5`` is a number,
``on``, ``yes`` and ``1:30`` are text, and only ``true`` and ``false`` are truth values.
"""

from __future__ import annotations

import json
import math
import re

Scalar = str | int | float | bool | None

_DIGITS = r"[0-9](?:_?[0-9])*"
_INTEGER = re.compile(rf"[-+]?{_DIGITS}")
_OCTAL = re.compile(r"0o[0-7](?:_?[0-7])*")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F](?:_?[0-9a-fA-F])*")
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)")
_NAN = (".nan", ".NaN", ".NAN")
_NULL = ("", "~", "null", "Null", "NULL")
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# Text that is safe without quotes wherever it stands, flow sequences included.
_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+@^-]*(?: [A-Za-z0-9_./+@^-]+)*")
# Words that other YAML readers take for truth values are quoted, so that a resolved recipe means the same everywhere.
_ELSEWHERE_BOOLEAN = {"y", "n", "yes", "no", "on", "off"}


def read_scalar(text: str) -> Scalar:
    """Return the value of an unquoted YAML 1.2 scalar.

    >>> [read_scalar(t) for t in ("5e-5", "on", "1:30", "0o17", "16_000", "true", "~")]
    [5e-05, 'on', '1:30', 15, 16000, True, None]
    """
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return -math.inf if text[0] == "-" else math.inf
    return math.nan if text in _NAN else text


def write_scalar(value: Scalar) -> str:
    """Return YAML text that ``read_scalar`` (or a quoted scalar's reader) turns back into exactly this value.

    >>> [write_scalar(v) for v in (5e-05, 1.0, "on", "5e-5", "left eye", None)]
    ['5e-05', '1.0', '"on"', '"5e-5"', 'left eye', 'null']
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, (int, float)):
        return repr(value)
    plain = _PLAIN.fullmatch(value) and isinstance(read_scalar(value), str) and value.lower() not in _ELSEWHERE_BOOLEAN
    if plain and value not in ("---", "..."):
        return value
    # A double-quoted YAML scalar is a superset of a JSON string; \x7f to \x9f are not printable in YAML.
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda m: f"\\u{ord(m[0]):04x}", json.dumps(value, ensure_ascii=False))
