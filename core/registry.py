"""The registries of priors, backbones, segmenters and estimators: names on one side, classes on the other.

Built-in parts register when their module is imported, and modules are imported when a registry is first read, never at
``import priorzoo``. Third-party packages announce theirs by entry points of the groups ``priorzoo.priors``,
``priorzoo.backbones``, ``priorzoo.segmenters`` and ``priorzoo.estimators``: the entry point's name is the registry name, its
value the class (or the module that registers it).
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from .errors import UnknownNameError, did_you_mean

T = TypeVar("T")


class Registry:
    """Names and classes of one kind of part; ``kind`` is its plural, as in the recipe and in the entry-point group."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._classes: dict[str, type[Any]] = {}
        self._broken: dict[str, str] = {}
        self._entries: dict[str, EntryPoint] = {}
        self._refused: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as ``name``; a second, different class of that name is an error."""

        def decorate(cls: type[T]) -> type[T]:
            known = self._classes.get(name)
            if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise ValueError(
                    f"{self.kind}: the name {name!r} is taken by {known.__module__}.{known.__qualname__}; "
                    f"{cls.__module__}.{cls.__qualname__} needs another"
                )
            cls.registry_name = name  # type: ignore[attr-defined]
            self._classes[name] = cls
            return cls

        return decorate

    def refuse(self, name: str, reason: str) -> None:
        """Let a name that is known elsewhere, and that nobody registers here, be refused with the reason; ``-`` and ``_`` are one."""
        self._refused[name.replace("-", "_")] = reason

    def refusal(self, name: str) -> str | None:
        """Return why a name is refused, or None."""
        self._load()
        return None if name in self._classes else self._refused.get(name.replace("-", "_"))

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        root = __name__.rsplit(".core.", 1)[0]
        package = importlib.import_module(f"{root}.{self.package}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")
        for entry in entry_points(group=f"priorzoo.{self.kind}"):
            self._entries[entry.name] = entry
            try:
                loaded = entry.load()
            except Exception as error:  # noqa: BLE001  a broken plug-in must not break the others
                self._broken[entry.name] = f"{entry.value}: {type(error).__name__}: {error}"
                continue
            if inspect.isclass(loaded) and entry.name not in self._classes:
                self.register(entry.name)(loaded)

    def names(self, pattern: str = "*") -> list[str]:
        """Return the sorted names that match a shell pattern."""
        self._load()
        return sorted(fnmatch.filter(self._classes, pattern))

    def get(self, name: str) -> type[Any]:
        """Return the class of that name.

        Raises UnknownNameError with the allowed names, the nearest one, the reason of a refusal, and a broken plug-in's own error.
        """
        self._load()
        if name in self._classes:
            return self._classes[name]
        reason = self.refusal(name)
        if reason:
            raise UnknownNameError(f"{self.kind}: {name!r} is refused: {reason}")
        if name in self._broken:
            raise UnknownNameError(f"{self.kind}: {name!r} comes from a plug-in that failed to import: {self._broken[name]}")
        raise UnknownNameError(
            f"{self.kind}: {name!r} is not registered{did_you_mean(name, self._classes)}; known: {', '.join(self.names())}"
        )

    def create(self, name: str, **options: Any) -> Any:
        """Build the part of that name with these options."""
        return self.get(name)(**options)

    def broken(self) -> dict[str, str]:
        """Return the plug-ins that failed to import, with their errors."""
        self._load()
        return dict(self._broken)

    def origin(self, name: str) -> str:
        """Return the distribution that registered ``name``: ``priorzoo`` or a third party's."""
        self.get(name)
        entry = self._entries.get(name)
        return entry.dist.name if entry is not None and entry.dist is not None else "priorzoo"


PRIORS = Registry("priors", "priors")
BACKBONES = Registry("backbones", "backbones")
SEGMENTERS = Registry("segmenters", "segmenters")
ESTIMATORS = Registry("estimators", "segmenters")
BACKGROUNDS = Registry("backgrounds", "backbones.backgrounds")

register_prior = PRIORS.register
register_backbone = BACKBONES.register
register_segmenter = SEGMENTERS.register
register_estimator = ESTIMATORS.register
register_background = BACKGROUNDS.register
