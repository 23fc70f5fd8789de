"""The golden resolved copy of every shipped recipe and variant.

After a wanted change: `python tests/recipe_goldens.py`, and read the difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from priorzoo.core.recipe import Recipe

FOLDER = Path(__file__).resolve().parent / "recipes_golden"


def resolved() -> dict[str, str]:
    """Return file name and text of every shipped recipe and of each of its variants; none of the files that they name is needed."""
    from priorzoo.core.recipe import load_recipe, shipped_recipes

    out = {}
    for name in shipped_recipes():
        recipe = load_recipe(name, check_files=False)
        out[f"{name}.yaml"] = text_from(recipe, Path.cwd())
        out |= {f"{name}@{variant}.yaml": text_from(recipe.variant(variant), Path.cwd()) for variant in recipe.variants}
    return out


def text_from(recipe: Recipe, folder: Path) -> str:
    """Return the resolved recipe as YAML, paths inside ``folder`` as seen from there, so that no machine is in it."""
    from priorzoo.core.recipe.writing import write_yaml

    def seen(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: seen(child) for key, child in value.items()}
        return value.removeprefix(f"{folder}/") if isinstance(value, str) else value

    return write_yaml(seen(recipe.to_plain()))


def stored() -> dict[str, str]:
    """Return what the golden folder holds."""
    return {p.relative_to(FOLDER).as_posix(): p.read_text(encoding="utf-8") for p in sorted(FOLDER.rglob("*.yaml"))}


def regenerate() -> None:
    """Write the golden folder anew, without copies of recipes that are gone."""
    texts = resolved()
    for name in stored():
        if name not in texts:
            (FOLDER / name).unlink()
    for name, text in texts.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    regenerate()
