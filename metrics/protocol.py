"""Results and what they were measured under: stored together, compared only when they were measured alike."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import PriorzooError, did_you_mean
from ..core.files import write_atomically, write_text_atomically
from .columns import COLUMNS, TRUE
from .statistics import Array, Interval, distance_terms, mean_interval, paired_interval

KIND = "priorzoo evaluation"
VERSION = 1
_INVERTED = "inverted_"


@dataclass
class Result:
    """One model's measures.

    ``subject``: what was measured, for people. ``protocol``: everything that decides the numbers except the model.
    ``terms``: per column one term per latent or head (their mean is the column's value; NaN where there was nothing
    to measure). ``true``: terms of true heads under the same functions, per column that has them. ``features``: of
    every generated image [N,d]. ``seconds``: time by part. ``inverted``: the first inverted heads, for pictures:
    ``image depth opacity`` of the model, ``true_image true_depth`` [n,...] as in a Scene, ``labels`` [n,h,w] and
    ``camera`` [n,25].

    >>> result = Result("a", {"seed": 0}, {"sr_skin": np.array([1.0, 3.0])}, {"sr_skin": np.array([5.0, 5.0])})
    >>> result.value("sr_skin").value, result.true_value("sr_skin").value, result.distance("sr_skin").value
    (2.0, 5.0, 3.0)
    """

    subject: str
    protocol: dict[str, Any]
    terms: dict[str, Array]
    true: dict[str, Array] = field(default_factory=dict)
    features: NDArray[Any] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    inverted: dict[str, NDArray[Any]] = field(default_factory=dict)

    def columns(self) -> list[str]:
        """Keys of the measured columns, in the order of tables."""
        return [key for key in COLUMNS if key in self.terms]

    def value(self, column: str) -> Interval:
        """The column's value with its 95 % interval over latents."""
        return mean_interval(self._terms(column))

    def true_value(self, column: str) -> Interval | None:
        """The value of true heads, or None where it is not known."""
        return mean_interval(self.true[column]) if column in self.true else None

    def has_true_value(self, column: str) -> bool:
        """Whether true heads have a finite value in this column."""
        true = self.true_value(column)
        return true is not None and math.isfinite(true.value)

    def distance(self, column: str) -> Interval:
        """|value - true value| with its interval over latents, the true value taken as exact."""
        return mean_interval(self.distance_terms(column))

    def distance_terms(self, column: str) -> Array:
        """Terms whose mean is |value - true value|; PriorzooError where the column has no true value."""
        true = self.true_value(column)
        if true is None or not math.isfinite(true.value):
            raise PriorzooError(f"result of {self.subject}: column {column!r} has no true value to be distant from")
        return distance_terms(self._terms(column), true.value)

    def _terms(self, column: str) -> Array:
        if column not in self.terms:
            raise PriorzooError(
                f"result of {self.subject}: no column {column!r}{did_you_mean(column, self.terms)}; it has: " + ", ".join(self.columns())
            )
        return self.terms[column]

    def to_json(self) -> dict[str, Any]:
        """Everything but the features, as plain JSON values; NaN is written as null."""
        columns = {}
        for key in self.columns():
            true = self.true_value(key)
            entry: dict[str, Any] = {
                "label": COLUMNS[key].label,
                "unit": COLUMNS[key].unit,
                "goal": COLUMNS[key].goal,
                **self.value(key).to_plain(),
                "terms": _plain(self.terms[key]),
            }
            if true is not None:
                entry["true"] = {**true.to_plain(), "terms": _plain(self.true[key])}
            columns[key] = entry
        return {
            "kind": KIND,
            "version": VERSION,
            "subject": self.subject,
            "protocol": self.protocol,
            "columns": columns,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], *, source: str = "result") -> Result:
        """Read what ``to_json`` gave; PriorzooError when it is something else."""
        if plain.get("kind") != KIND or plain.get("version") != VERSION:
            raise PriorzooError(
                f"{source}: not a result of `priorzoo evaluate` of version {VERSION} (kind {plain.get('kind')!r}, "
                f"version {plain.get('version')!r})"
            )
        columns = plain["columns"]
        terms = {key: _array(entry["terms"]) for key, entry in columns.items()}
        true = {key: _array(entry["true"]["terms"]) for key, entry in columns.items() if "true" in entry}
        return cls(plain["subject"], dict(plain["protocol"]), terms, true, seconds=dict(plain["seconds"]))

    def save(self, path: str | Path) -> None:
        """Write ``path`` (.json) and the arrays beside it (.npz), each whole or not at all; the .json comes last."""
        target = Path(path)
        arrays = {_INVERTED + name: array for name, array in self.inverted.items()}
        if self.features is not None:
            arrays["features"] = self.features
        if arrays:
            # Features of 50,000 images are hundreds of megabytes and hardly shrink.
            with write_atomically(target.with_suffix(".npz")) as beside:
                np.savez(beside, **arrays)  # type: ignore[arg-type]
        write_text_atomically(target, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path, *, features: bool = True) -> Result:
        """Read a result, with its ``features`` (large) or without; PriorzooError when there is none or it is damaged."""
        target = Path(path)
        try:
            plain = json.loads(target.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise PriorzooError(f"{target}: no result here; make it with `priorzoo evaluate`") from error
        except (OSError, ValueError) as error:
            raise PriorzooError(f"{target}: cannot be read as a result ({error})") from error
        try:
            result = cls.from_json(plain, source=str(target))
        except (KeyError, TypeError, AttributeError) as error:
            raise PriorzooError(f"{target}: a damaged result ({type(error).__name__}: {error})") from error
        beside = target.with_suffix(".npz")
        if beside.exists():
            with np.load(beside) as arrays:
                result.features = arrays["features"] if features and "features" in arrays.files else None
                names = [name for name in arrays.files if name.startswith(_INVERTED)]
                result.inverted = {name.removeprefix(_INVERTED): arrays[name] for name in names}
        return result


def paired_difference(a: Result, b: Result, column: str, *, distance: bool = False) -> Interval:
    """``a``'s value minus ``b``'s over the same latents, with its 95 % interval (paired t over the terms).

    ``distance``: of the distances to the true value instead, negative where ``a`` is closer to the truth.

    Raises PriorzooError when the protocols differ or a result lacks the column.

    >>> a, b = (Result(n, {}, {"truth_depth": np.array(v)}) for n, v in (("a", [1.0, 2.0]), ("b", [2.0, 3.5])))
    >>> paired_difference(a, b, "truth_depth").value
    -1.25
    """
    require_equal_protocols([a, b])
    if distance:
        return paired_interval(a.distance_terms(column), b.distance_terms(column))
    return paired_interval(a._terms(column), b._terms(column))


def judged_difference(a: Result, b: Result, column: str) -> Interval:
    """``paired_difference`` signed so that negative is better: of distances for columns that aim at the true value."""
    goal = COLUMNS[column].goal
    difference = paired_difference(a, b, column, distance=goal == TRUE and a.has_true_value(column))
    if goal == "higher":
        return Interval(-difference.value, -difference.high, -difference.low, difference.count)
    return difference


def require_equal_protocols(results: Sequence[Result]) -> None:
    """Raise PriorzooError naming the first protocol field in which results differ, and both values.

    >>> require_equal_protocols([Result("a", {"seed": 0}, {}), Result("b", {"seed": 1}, {})])
    Traceback (most recent call last):
    ...
    priorzoo.core.errors.PriorzooError: these results cannot be compared: protocol field `seed` is 0 in a and 1 in b; \
evaluate both under one protocol
    """
    for other in results[1:]:
        for name, mine, theirs in _differences(results[0].protocol, other.protocol):
            raise PriorzooError(
                f"these results cannot be compared: protocol field `{name}` is {mine} in {results[0].subject} and "
                f"{theirs} in {other.subject}; evaluate both under one protocol"
            )


_ABSENT = object()


def _differences(a: Any, b: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """(field, value in a, value in b) of every leaf in which two protocols differ."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        names = list(dict.fromkeys([*a, *b]))
        return [d for n in names for d in _differences(a.get(n, _ABSENT), b.get(n, _ABSENT), f"{prefix}.{n}" if prefix else n)]
    if a == b:
        return []
    mine, theirs = ("absent" if v is _ABSENT else json.dumps(v) for v in (a, b))
    return [(prefix, mine, theirs)]


def _plain(values: Array) -> list[float | None]:
    return [float(v) if math.isfinite(v) else None for v in np.asarray(values, dtype=np.float64)]


def _array(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)
