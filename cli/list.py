"""`priorzoo list`: what there is, in one line each, and which package it comes from."""

from __future__ import annotations

import inspect
from typing import Annotated

import typer

from ..core.errors import UnknownNameError, did_you_mean

KINDS = ("priors", "backbones", "backgrounds", "segmenters", "estimators", "recipes")
Row = tuple[str, str, str]


def command(
    kind: Annotated[str | None, typer.Argument(help=", ".join(KINDS) + "; all of them when left out.")] = None,
    pattern: Annotated[str, typer.Argument(help="A shell pattern of names, such as 'density_*'.")] = "*",
) -> None:
    """List priors, backbones, backgrounds, segmenters, estimators and recipes."""
    if kind is not None and kind not in KINDS:
        raise UnknownNameError(f"list: {kind!r} is not a kind{did_you_mean(kind, KINDS)}; known: {', '.join(KINDS)}")
    for chosen in (kind,) if kind is not None else KINDS:
        rows = recipe_rows(pattern) if chosen == "recipes" else part_rows(chosen, pattern)
        print_rows(chosen, rows)


def recipe_rows(pattern: str) -> list[Row]:
    """Name, first comment and package of the shipped recipes."""
    from ..core.recipe.composing import SHIPPED, SUFFIX, shipped_recipes

    rows = []
    for name in shipped_recipes(pattern):
        first = (SHIPPED / f"{name}{SUFFIX}").read_text(encoding="utf-8").split("\n", 1)[0]
        rows.append((name, first.removeprefix("#").strip() if first.startswith("#") else "", "priorzoo"))
    return rows


def part_rows(kind: str, pattern: str) -> list[Row]:
    """Name, first line of the docstring and package of the registered parts; plug-ins that failed to import say why."""
    from ..core import registry as registries

    registry: registries.Registry = getattr(registries, kind.upper())
    rows = [(n, _first_line(registry.get(n)), registry.origin(n)) for n in registry.names(pattern)]
    return rows + [(n, f"failed to import: {why}", "plug-in") for n, why in sorted(registry.broken().items())]


def _first_line(cls: type) -> str:
    return (inspect.getdoc(cls) or "").split("\n", 1)[0]


def print_rows(title: str, rows: list[Row]) -> None:
    """Print rows as aligned columns; on a terminal, cut to its width."""
    import shutil
    import sys

    print(f"{title}:" if rows else f"{title}: none")
    width = max((len(name) for name, _, _ in rows), default=0)
    room = shutil.get_terminal_size((100, 20)).columns if sys.stdout.isatty() else 1000
    for name, line, package in rows:
        text = f"  {name:<{width}}  {line}"
        source = f"  [{package}]"
        space = max(room - len(source), width + 4)
        print((text if len(text) <= space else text[: space - 3] + "...") + source)
