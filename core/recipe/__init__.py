"""Recipes: YAML files that say everything a run needs, composed, checked and turned into typed objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .composing import shipped_recipes as shipped_recipes
    from .loading import load_recipe as load_recipe
    from .schema import Recipe as Recipe

__all__ = ["Recipe", "load_recipe", "shipped_recipes"]
_HOMES = {"Recipe": "schema", "load_recipe": "loading", "shipped_recipes": "composing"}


def __getattr__(name: str) -> Any:
    # Lazy, so that a list of shipped recipes costs neither pydantic nor torch.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
