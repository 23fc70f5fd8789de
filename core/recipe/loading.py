"""``load_recipe``: from a name or path, overrides and a variant to a checked Recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..registry import BACKBONES, BACKGROUNDS, ESTIMATORS, PRIORS, SEGMENTERS, Registry
from .checking import check
from .composing import choose_variant, compose_file, locate, override_trees, split_variant
from .nodes import Node, merge, tree_from_plain
from .parts import read_part, read_prior
from .problems import InvalidRecipe, MissingFile, Origin, Problem, join, unknown_name
from .reading import describe
from .schema import FolderData, HeadsData, Part, PriorEntry, Recipe
from .shipped import shipped_generators
from .validating import INVALID, Validator, absolute

DATA = {"heads": HeadsData, "eg3d": FolderData}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def load_recipe(
    source: str | os.PathLike[str], overrides: Sequence[str] = (), variant: str | None = None, *, check_files: bool = True
) -> Recipe:
    """Load, compose and check a recipe; nothing is built.

    ``source`` is a shipped name (``heads/eg3d_ssr``) or a path (ends in .yaml, or starts with ./ or /), with ``@variant`` or beside it
    ``variant``. ``overrides`` are ``dotted.key=value``, values as YAML, applied in order after the variant. ``check_files=False`` lets
    it name files that are not there (a finished run that was moved): ``Recipe.missing`` lists them.

    Raises RecipeError (``.problems``) with file, line, key, what was got, what is allowed and the nearest name.
    """
    text = os.fspath(source)
    if not isinstance(source, str):
        text = str(Path(text).absolute())  # a Path is a path, whatever it looks like
    name, chosen = split_variant(text)
    asked = Origin("command line", 0, Path.cwd())
    if chosen and variant and chosen != variant:
        raise InvalidRecipe([Problem(asked, "variant", "two variants were chosen", f"{chosen} and {variant}", "one")])
    base = compose_file(locate(name, asked))
    return _resolve(base, tuple(override_trees(overrides)), chosen or variant, name, check_files)


def load_variant(recipe: Recipe, name: str) -> Recipe:
    """Return a variant of a loaded recipe, its overrides applied again after the variant."""
    assert recipe._base is not None
    return _resolve(recipe._base, recipe._overrides, name, recipe.source.partition("@")[0], recipe._check_files)


def load_changed(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a loaded recipe with more overrides, checked anew; raises RecipeError as ``load_recipe``."""
    assert recipe._base is not None
    source, _, variant = recipe.source.partition("@")
    more = (*recipe._overrides, *override_trees(overrides))
    return _resolve(recipe._base, more, variant or None, source, recipe._check_files)


def recipe_from_plain(mapping: Mapping[str, Any], where: str) -> Recipe:
    """Return the recipe of plain values; files that it names need not exist."""
    tree = tree_from_plain(mapping, Origin(where, 0, Path(where).absolute().parent))
    return _resolve(tree, (), None, where, check_files=False)


def _resolve(base: Node, overrides: tuple[Node, ...], variant: str | None, source: str, check_files: bool) -> Recipe:
    tree = base
    for over in overrides:
        tree = merge(tree, over)
    if variant is not None:
        tree = choose_variant(tree, variant, Origin("command line", 0, Path.cwd()))
        for over in overrides:
            # A variant that removed an entry is not given a piece of it back by an override of the entry's inside.
            if not _inside_removed(tree, over):
                tree = merge(tree, over)
    recipe = _build(tree.without("variants") if variant is not None else tree, check_files)
    recipe._source = source if variant is None else f"{source}@{variant}"
    recipe._base, recipe._overrides, recipe._check_files = base, overrides, check_files
    if variant is None:
        _check_variants(recipe)
    return recipe


def _inside_removed(tree: Node, over: Node) -> bool:
    """Whether an override addresses the inside of something that the tree holds as null."""
    if not over.is_mapping:
        return False
    for key, inner in over.value.items():
        here = tree.child(key)
        if here is None:
            return False
        return inner.is_mapping if here.value is None else _inside_removed(here, inner)
    return False


def _check_variants(recipe: Recipe) -> None:
    problems: list[Problem] = []
    for name in recipe.variants:
        try:
            load_variant(recipe, name)
        except InvalidRecipe as error:
            # What one variant starts from may be absent until that variant is asked for.
            problems.extend(p for p in error.problems if not isinstance(p, MissingFile))
    if problems:
        raise InvalidRecipe(problems)


def _build(tree: Node, check_files: bool) -> Recipe:
    """Read the composed tree by the schema; raises InvalidRecipe with everything wrong."""
    validator = Validator()
    readers = {
        "backbone": lambda node, key: read_part(validator, BACKBONES, node, key),
        "background": lambda node, key: _background(validator, node, key),
        "segmenter": lambda node, key: _optional_part(validator, SEGMENTERS, node, key),
        "estimator": lambda node, key: _optional_part(validator, ESTIMATORS, node, key),
        "priors": lambda node, key: _priors(validator, node, key),
        "data": lambda node, key: _data(validator, node, key),
        "init": lambda node, key: _init(validator, node, key),
        "variants": lambda node, key: _variants(validator, node, key),
    }
    recipe = validator.section(Recipe, tree, "", readers)
    problems, missing = validator.problems, list[Problem]()
    if isinstance(recipe, Recipe) and not problems:
        problems, missing = check(recipe, tree)
    if check_files:
        problems = problems or missing  # what is wrong with the recipe itself comes first
    if problems or not isinstance(recipe, Recipe):
        raise InvalidRecipe(problems)
    recipe._origins = {key: str(node.origin) for key, node in tree.leaves()}
    recipe._missing = tuple(missing)
    return recipe


def _optional_part(validator: Validator, registry: Registry, node: Node, key: str) -> Any:
    return None if node.value is None else read_part(validator, registry, node, key)


def _background(validator: Validator, node: Node, key: str) -> Any:
    values = node.value if node.is_mapping else {}
    name = values.get("name")
    if name is None or not isinstance(name.value, str):
        return validator.report(Problem(node.origin, key, "not a background", describe(node), "{name: none}"))
    if name.value == "none":
        given = node.without("name").value
        for option, child in given.items():
            validator.report(unknown_name(child.key_origin, join(key, option), "an option of no background", option, ["name"]))
        return INVALID if given else Part(name="none")
    if name.value not in BACKGROUNDS.names():
        known = ["none", *BACKGROUNDS.names()]
        return validator.report(unknown_name(name.origin, join(key, "name"), "no such background", name.value, known))
    return read_part(validator, BACKGROUNDS, node, key, hidden=("channels",))


def _priors(validator: Validator, node: Node, key: str) -> Any:
    if not node.is_mapping:
        allowed = "a mapping of entries, such as {skin: {name: ssr, weight: 1}}"
        return validator.report(Problem(node.origin, key, "not a mapping", describe(node), allowed))
    entries: dict[str, PriorEntry] = {}
    siblings = [name for name, child in node.value.items() if child.value is not None]
    for name in siblings:
        child = node.value[name]
        if not _named(validator, name, child, key):
            continue
        entry = read_prior(validator, PRIORS, child, join(key, name), siblings)
        if isinstance(entry, PriorEntry):
            entries[name] = entry
    return entries if len(entries) == len(siblings) else INVALID


def _named(validator: Validator, name: str, node: Node, key: str) -> bool:
    if _NAME.fullmatch(name):
        return True
    allowed = "a letter, then letters, digits, _ and -"
    validator.report(Problem(node.key_origin, join(key, name), "not a name that overrides can address", repr(name), allowed))
    return False


def _data(validator: Validator, node: Node, key: str) -> Any:
    if node.value is None:
        return None
    name = node.child("name")
    if name is None or name.value is None:
        where = node.origin if name is None else name.origin
        got = "nothing" if node.is_mapping else describe(node)
        return validator.report(Problem(where, join(key, "name"), "missing", got, ", ".join(DATA)))
    if name.value not in list(DATA):
        return validator.report(unknown_name(name.origin, join(key, "name"), "no such data", str(name.plain()), DATA))
    return validator.section(DATA[name.value], node, key)


def _init(validator: Validator, node: Node, key: str) -> Any:
    if node.value is None:
        return None
    if not isinstance(node.value, str):
        allowed = "a run, a checkpoint, a safetensors file, or the name of shipped weights"
        return validator.report(Problem(node.origin, key, "not allowed", describe(node), allowed))
    return node.value if node.value in shipped_generators() else str(absolute(node.value, node))


def _variants(validator: Validator, node: Node, key: str) -> Any:
    if not node.is_mapping:
        return validator.report(Problem(node.origin, key, "not a mapping", describe(node), "a mapping of names to overrides"))
    kept: dict[str, Any] = {}
    for name, child in node.value.items():
        if child.value is None or not _named(validator, name, child, key):
            continue
        if child.is_mapping:
            kept[name] = child.plain()
        else:
            validator.report(Problem(child.origin, join(key, name), "not a variant", describe(child), "a mapping of overrides"))
    return kept
