"""Composition: a recipe file, what it extends, the variant that was chosen and the command line's overrides become one tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import did_you_mean
from .nodes import Node, merge, through
from .problems import InvalidRecipe, Origin, Problem, join, unknown_name
from .reading import describe, read_file, read_text

SHIPPED = Path(__file__).resolve().parent.parent.parent / "recipes"
SUFFIX = ".yaml"


def shipped_recipes(pattern: str = "*") -> list[str]:
    """Return the sorted names of the recipes that come with the package, such as ``heads/eg3d_ssr``."""
    from fnmatch import filter as matching

    names = (path.relative_to(SHIPPED).with_suffix("").as_posix() for path in SHIPPED.rglob(f"*{SUFFIX}"))
    return sorted(matching(names, pattern))


def is_path(source: str) -> bool:
    """Whether a recipe is named by a path (ends in .yaml, or starts with ``./``, ``../``, ``/`` or ``~``), not by a shipped name."""
    return source.endswith((SUFFIX, ".yml")) or source.startswith(("./", "../", "/", "~", ".\\")) or Path(source).is_absolute()


def split_variant(source: str) -> tuple[str, str | None]:
    """Split ``NAME@variant``; an existing file whose name holds ``@`` is not split.

    >>> split_variant("heads/eg3d_ssr_table1@skin")
    ('heads/eg3d_ssr_table1', 'skin')
    """
    if "@" not in source or (is_path(source) and Path(source).expanduser().exists()):
        return source, None
    name, _, variant = source.rpartition("@")
    return name, variant


def run_name(source: str, variant: str | None = None) -> str:
    """Return how the run of a recipe is called where nobody says it: two shipped recipes never share a name.

    >>> run_name("ffhq/eg3d_ssr@ffhq512-128"), run_name("./recipes/mine.yaml", "skin")
    ('ffhq_eg3d_ssr-ffhq512-128', 'mine-skin')
    """
    name, chosen = split_variant(source)
    plain = Path(name).stem if is_path(name) else name.replace("/", "_")
    return "-".join([plain, *(v for v in (variant or chosen,) if v)])


def shown_name(path: Path) -> str:
    """Return how messages call a recipe file: from the package, from the current folder, or in full."""
    for root, prefix in ((SHIPPED, "recipes/"), (Path.cwd(), "")):
        try:
            return prefix + path.relative_to(root).as_posix()
        except ValueError:
            continue
    return str(path)


def locate(source: str, mentioned: Origin, key: str = "") -> Path:
    """Return the file of a shipped name or path; relative paths start from the folder of the file that mentions them."""
    if not is_path(source):
        path = SHIPPED / f"{source}{SUFFIX}"
        if path.is_file():
            return path
        problem = unknown_name(mentioned, key, "no shipped recipe of that name", source, shipped_recipes())
        hint = f"{problem.allowed}, or a path that ends in {SUFFIX} or starts with ./"
        raise InvalidRecipe([replace(problem, allowed=hint)])
    path = (mentioned.folder / Path(source).expanduser()).resolve()
    if path.is_file():
        return path
    what = "is a folder, not a recipe file" if path.is_dir() else "no such recipe file"
    near = did_you_mean(path.name, [p.name for p in path.parent.glob(f"*{SUFFIX}")]) if path.parent.is_dir() else ""
    raise InvalidRecipe([Problem(mentioned, key, f"{what}{near}", repr(source), "a recipe file or a shipped name")])


def compose_file(path: Path, chain: tuple[Path, ...] = ()) -> Node:
    """Read a recipe file and everything that it extends; later wins. Raises InvalidRecipe, for a circle with its files."""
    node = read_file(path, shown_name(path))
    parents = node.child("extends")
    if parents is None:
        return node
    # Deepest last, so that the file's own values win; its own origin describes the whole.
    tree: Node | None = None
    for parent, parent_path in _parents(parents):
        if parent_path in (*chain, path):
            circle = [shown_name(p) for p in (*chain, path, parent_path)]
            raise InvalidRecipe([Problem(parent.origin, "extends", "recipes extend each other in a circle",
                                         " -> ".join(circle[circle.index(circle[-1]):]), "a chain that ends")])  # fmt: skip
        inner = compose_file(parent_path, (*chain, path))
        tree = inner if tree is None else merge(tree, inner)
    own = node.without("extends")
    return own if tree is None else replace(merge(tree, own), origin=node.origin)


def _parents(node: Node) -> list[tuple[Node, Path]]:
    if node.value is None:
        return []
    nodes = node.value if isinstance(node.value, list) else [node]
    for item in nodes:
        if not isinstance(item.value, str):
            raise InvalidRecipe([Problem(item.origin, "extends", "not a recipe", describe(item),
                                         "a shipped name, a path, or a list of them")])  # fmt: skip
    return [(item, locate(item.value, item.origin, "extends")) for item in nodes]


def override_trees(overrides: Sequence[str]) -> list[Node]:
    """Return one tree for each ``dotted.key=value``; the value is YAML. Raises InvalidRecipe naming the override."""
    problems: list[Problem] = []
    trees = []
    for number, text in enumerate(overrides, 1):
        try:
            trees.append(_override(text, Origin(f"override {number}: {text}", 0, Path.cwd())))
        except InvalidRecipe as error:
            problems.extend(error.problems)
    if problems:
        raise InvalidRecipe(problems)
    return trees


def _override(text: str, origin: Origin) -> Node:
    key, equals, value = text.partition("=")
    keys = key.strip().split(".")
    form = "dotted.key=value, such as training.batch=16"
    if not equals:
        raise InvalidRecipe([Problem(origin, "", "an override has no '='", repr(text), form)])
    if not all(part.strip() == part and part for part in keys):
        raise InvalidRecipe([Problem(origin, key, "not a dotted key", repr(key), form)])
    if keys[0] == "extends":
        raise InvalidRecipe([Problem(origin, "extends", "extends cannot be overridden", repr(value), "a recipe file that extends both")])
    if not value.strip():
        raise InvalidRecipe([Problem(origin, key, "no value after '='", "nothing", "a value; null removes the key")])
    node = read_text(value, origin, lines=False)
    for part in reversed(keys):
        node = Node({part: node}, origin, origin)
    return node


def choose_variant(tree: Node, name: str, asked: Origin) -> Node:
    """Return the recipe with the variant's overrides merged in and its ``variants`` gone; every origin it brings names it."""
    variants = tree.child("variants")
    known = {k: v for k, v in variants.value.items() if v.value is not None} if variants and variants.is_mapping else {}
    if name not in known:
        raise InvalidRecipe([unknown_name(asked, "variants", "the recipe has no such variant", name, known)])
    over = known[name]
    if not over.is_mapping:
        raise InvalidRecipe([Problem(over.origin, join("variants", name), "not a variant", describe(over), "a mapping of overrides")])
    for key in ("extends", "variants"):
        inner = over.child(key)
        if inner is not None:
            raise InvalidRecipe([Problem(inner.key_origin, join("variants", name, key), f"a variant cannot hold {key}", describe(inner),
                                         "overrides of the recipe's other keys")])  # fmt: skip
    return merge(tree.without("variants"), through(over, f"variant {name}"))
