"""priorzoo: shape priors for 3D-aware GANs, composed by recipes."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "__version__", "create_backbone", "create_estimator", "create_prior", "create_segmenter", "extract_mesh", "list_backbones",
    "list_backgrounds", "list_estimators", "list_priors", "list_segmenters", "load_recipe", "load_run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Everything is imported when first asked for, so that `import priorzoo` stays light.
    if name not in __all__:
        raise AttributeError(f"module 'priorzoo' has no attribute {name!r}")
    return getattr(import_module(".core.api", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)
