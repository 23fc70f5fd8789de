"""Shipped recipes resolve to their golden copies: no change of a default or of a parent goes unseen."""

from __future__ import annotations

from difflib import unified_diff
from pathlib import Path

import pytest
from priorzoo.core.recipe import load_recipe, shipped_recipes
from recipe_goldens import resolved, stored, text_from


def test_every_shipped_recipe_and_variant_has_its_golden_copy():
    now, golden = resolved(), stored()
    assert set(now) == set(golden), "run: python tests/recipe_goldens.py"
    changed = [
        line for name in golden for line in unified_diff(golden[name].splitlines(), now[name].splitlines(), name, name, lineterm="", n=0)
    ]
    assert not changed, "\n".join(["where this is wanted, run: python tests/recipe_goldens.py", *changed])


def test_a_golden_copy_is_a_recipe_of_its_own(tmp_path):
    for name, text in stored().items():
        path = tmp_path / "copy.yaml"
        path.write_text(text)
        assert text_from(load_recipe(path, check_files=False), tmp_path) == text, name


def test_golden_copies_hold_no_path_of_a_machine():
    assert not [name for name, text in stored().items() if str(Path.home()) in text or str(Path.cwd()) in text or ": /" in text]


@pytest.mark.parametrize("family", ["heads", "ffhq"])
def test_the_table_has_its_three_rows(family):
    table = load_recipe(f"{family}/eg3d_ssr_table1", check_files=False)
    priors = {name: set(table.variant(name).priors) for name in table.variants}
    assert list(priors) == ["finetune", "skin", "skin_eyes"]
    assert priors == {"finetune": {"density_tv"}, "skin": {"skin", "density_tv"}, "skin_eyes": {"skin", "eyes", "density_tv"}}


def test_every_shipped_recipe_says_in_its_first_line_what_it_is():
    from priorzoo.cli.list import recipe_rows

    rows = recipe_rows("*")
    assert [name for name, _, _ in rows] == shipped_recipes() and all(len(line) > 20 for _, line, _ in rows)
