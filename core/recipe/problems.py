"""What is wrong with a recipe: each problem says where, which key, what was got and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import RecipeError, nearest_name


@dataclass(frozen=True)
class Origin:
    """Where a value comes from.

    ``file`` is the name shown to people, ``line`` counts from 1 (0: not from a file), ``folder`` is what relative paths
    start from, ``through`` names the variant that brought the value in.
    """

    file: str
    line: int = 0
    folder: Path = field(default=Path("."), compare=False)
    through: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place} ({self.through})" if self.through else place


@dataclass(frozen=True)
class Problem:
    """One thing wrong: ``got`` and ``allowed`` are ready to print; ``nearest`` is the name that was probably meant."""

    origin: Origin
    key: str
    text: str
    got: str = ""
    allowed: str = ""
    nearest: str | None = None

    def __str__(self) -> str:
        parts = [self.text]
        if self.got:
            parts.append(f"got {self.got}")
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.nearest:
            parts.append(f"did you mean {self.nearest!r}?")
        where = f"{self.origin}: {self.key}" if self.key else str(self.origin)
        return f"{where}: {'; '.join(parts)}"


@dataclass(frozen=True)
class MissingFile(Problem):
    """A file that a recipe names and that is not there; the recipe may be right all the same. ``whence`` says where it comes from."""

    whence: str = ""

    def __str__(self) -> str:
        return "; ".join([super().__str__(), *([self.whence] if self.whence else []), f"another place: {self.key}=PATH"])


class InvalidRecipe(RecipeError):
    """A recipe with one or more problems, all of them in ``problems``."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
        lines = [str(p) for p in self.problems]
        if len(lines) > 1:
            only_files = all(isinstance(p, MissingFile) for p in self.problems)
            what = "files that the recipe names are not there (nothing is downloaded)" if only_files else "errors in the recipe"
            lines = [f"{len(lines)} {what}", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))


def unknown_name(origin: Origin, key: str, text: str, name: str, allowed: Iterable[str]) -> Problem:
    """Return the problem of a name that is none of the allowed ones, with the nearest."""
    names = list(allowed)
    return Problem(origin, key, text, repr(name), ", ".join(names) or "none", nearest_name(name, names))


def join(*parts: str) -> str:
    """Return the dotted key of nested keys; empty parts are left out."""
    return ".".join(part for part in parts if part)
