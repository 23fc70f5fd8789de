"""The golden resolved copy of every shipped recipe and variant.

After a wanted change: `python tests/recipe_goldens.py`, and read the difference.
"""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "recipes_golden"


def resolved() -> dict[str, str]:
    """Return file name and text of every shipped recipe and of each of its variants."""
    from priorzoo.core.recipe import load_recipe, shipped_recipes

    out = {}
    for name in shipped_recipes():
        recipe = load_recipe(name)
        out[f"{name}.yaml"] = recipe.to_yaml()
        out |= {f"{name}@{variant}.yaml": recipe.variant(variant).to_yaml() for variant in recipe.variants}
    return out


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
