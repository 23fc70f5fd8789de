"""`priorzoo show`: a recipe with everything that it extends, its variant and overrides, as one YAML text."""

from __future__ import annotations

import sys
from typing import Annotated

import typer


def command(
    recipe: Annotated[str, typer.Argument(help="A shipped name or a path ending in .yaml; NAME@variant chooses a variant.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="dotted.key=value, such as priors.skin.weight=50.")] = None,
    variant: Annotated[str | None, typer.Option("--variant", help="The variant to show.")] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Write file and line beside each value.")] = False,
) -> None:
    """Print a recipe resolved, as YAML that can be fed back; the files that it names need not be there."""
    from ..core.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or (), variant, check_files=False)
    for missing in loaded.missing:
        print(f"note: {missing}", file=sys.stderr)
    print(loaded.to_yaml(origins=origin), end="")
