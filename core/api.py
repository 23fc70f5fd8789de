"""The Python interface: what ``from priorzoo import ...`` gives, each part imported when it is first used.

>>> from priorzoo import list_backbones
>>> "eg3d" in list_backbones("eg*")
True
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..backbones.base import Backbone
    from ..priors.base import Prior
    from ..segmenters.base import Estimator, Segmenter
    from ..shapes.mesh_levels import Level
    from ..shapes.meshes import Mesh
    from ..training.run import Run
    from .recipe.schema import Recipe
    from .scene import Field


def list_priors(pattern: str = "*") -> list[str]:
    """Return the sorted names of the registered priors that match a shell pattern, third parties' included."""
    from .registry import PRIORS

    return PRIORS.names(pattern)


def list_backbones(pattern: str = "*") -> list[str]:
    """Return the sorted names of the registered backbones that match a shell pattern."""
    from .registry import BACKBONES

    return BACKBONES.names(pattern)


def list_backgrounds(pattern: str = "*") -> list[str]:
    """Return the sorted names of the registered backgrounds that match a shell pattern."""
    from .registry import BACKGROUNDS

    return BACKGROUNDS.names(pattern)


def list_segmenters(pattern: str = "*") -> list[str]:
    """Return the sorted names of the registered segmenters that match a shell pattern."""
    from .registry import SEGMENTERS

    return SEGMENTERS.names(pattern)


def list_estimators(pattern: str = "*") -> list[str]:
    """Return the sorted names of the registered shape estimators that match a shell pattern."""
    from .registry import ESTIMATORS

    return ESTIMATORS.names(pattern)


def create_prior(name: str, **options: Any) -> Prior:
    """Build the prior of that name; raises UnknownNameError with the nearest name."""
    from .registry import PRIORS

    prior: Prior = PRIORS.create(name, **options)
    return prior


def create_backbone(name: str, **options: Any) -> Backbone:
    """Build the backbone of that name; raises UnknownNameError with the nearest name."""
    from .registry import BACKBONES

    backbone: Backbone = BACKBONES.create(name, **options)
    return backbone


def create_segmenter(name: str, **options: Any) -> Segmenter:
    """Build the segmenter of that name; raises UnknownNameError with the nearest name."""
    from .registry import SEGMENTERS

    segmenter: Segmenter = SEGMENTERS.create(name, **options)
    return segmenter


def create_estimator(name: str, **options: Any) -> Estimator:
    """Build the shape estimator of that name; raises UnknownNameError with the nearest name."""
    from .registry import ESTIMATORS

    estimator: Estimator = ESTIMATORS.create(name, **options)
    return estimator


def extract_mesh(field: Field, *, resolution: int = 256, level: Level | None = None) -> Mesh:
    """Return the surface of a field as a coloured triangle mesh; see `shapes.mesh_extraction.extract_mesh` for every option.

    ``resolution`` samples along each side of the field's cube; ``level`` None: half of the light is lost over 1/20 of the cube's side.
    Raises PriorzooError where nothing crosses the level.
    """
    from ..shapes.mesh_extraction import extract_mesh as extract

    return extract(field, resolution=resolution, level=level)


def load_recipe(
    source: str | os.PathLike[str], overrides: Sequence[str] = (), variant: str | None = None, *, check_files: bool = True
) -> Recipe:
    """Load, compose and check a recipe by shipped name or path; raises RecipeError with file, line and key. Nothing is built.

    ``overrides`` are ``dotted.key=value``; ``check_files=False`` lets ``init`` name what is no longer there.
    """
    from .recipe.loading import load_recipe as load

    return load(source, overrides, variant, check_files=check_files)


def load_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder, a checkpoint, a ``.safetensors`` file with its card, or shipped weights by name; raises RunError."""
    from ..training.run import load_run as load

    return load(path)
