"""extends, variants and overrides: what wins, what removes, and where each value came from."""

from __future__ import annotations

from pathlib import Path

import pytest
from broken_recipes import BASE, SKIN
from priorzoo import load_recipe
from priorzoo.core.errors import RecipeError
from priorzoo.core.recipe import Recipe, shipped_recipes
from priorzoo.core.schedule import Linear


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files into the current folder, which is empty."""
    monkeypatch.chdir(tmp_path)

    def write_files(**files: str) -> None:
        for name, text in files.items():
            path = tmp_path / (name.replace("__", "/") + ".yaml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    return write_files


def test_later_wins_and_mappings_are_joined(write):
    write(base=BASE, one="training: {batch: 4, betas: [0.1, 0.9]}\nseed: 1\n", top="extends: [./base.yaml, ./one.yaml]\nseed: 2\n")
    recipe = load_recipe("top.yaml")
    assert (recipe.training.images, recipe.training.batch, recipe.training.betas, recipe.seed) == (1000, 4, (0.1, 0.9), 2)
    assert recipe.origin("training.images") == "base.yaml:4"
    assert recipe.origin("training.batch") == "one.yaml:1"
    assert recipe.origin("seed") == "top.yaml:2"
    assert recipe.origin("training.log_every") == "default"


def test_lists_are_replaced_whole(write):
    write(base=BASE + SKIN.replace("region: skin", "region: [left_eye, right_eye]"), top="""
extends: ./base.yaml
priors: {skin: {region: [hair]}}
""")  # fmt: skip
    assert load_recipe("top.yaml").priors["skin"].options["region"] == ["hair"]


def test_null_removes(write):
    write(base=BASE + SKIN + "seed: 5\n", top="extends: ./base.yaml\npriors: {skin: null}\nsegmenter: null\nseed: null\n")
    recipe = load_recipe("top.yaml")
    assert recipe.priors == {} and recipe.segmenter is None and recipe.seed == 0


def test_null_is_a_value_where_the_key_allows_it(write):
    write(top=BASE + SKIN.replace("weight", "max_view_angle: null, erosion: null, weight"))
    recipe = load_recipe("top.yaml", ["training.average.ramp_up=null", "objective.r1=null"])
    assert recipe.training.average.ramp_up is None and recipe.objective.r1 is None
    assert recipe.priors["skin"].options["max_view_angle"] is None
    assert recipe.priors["skin"].options["erosion"] == 3


def test_a_removed_entry_can_be_given_anew(write):
    write(base=BASE + SKIN, middle="extends: ./base.yaml\npriors: {skin: null}\n",
          top="extends: ./middle.yaml\npriors: {skin: {name: density_tv, weight: 1}}\n")  # fmt: skip
    assert load_recipe("top.yaml").priors["skin"].name == "density_tv"


def test_another_name_starts_the_mapping_anew(write):
    write(base=BASE + SKIN, top="extends: ./base.yaml\npriors: {skin: {name: density_tv, weight: 1}}\n")
    entry = load_recipe("top.yaml").priors["skin"]
    assert (entry.name, entry.weight) == ("density_tv", 1.0) and "region" not in entry.options
    same = load_recipe("base.yaml", ["priors.skin={name: ssr, erosion: 5}"]).priors["skin"]
    assert (same.weight, same.options["region"], same.options["erosion"]) == (0.02, "skin", 5)


def test_another_kind_starts_a_schedule_anew(write):
    write(base=BASE + SKIN.replace("0.02", "{kind: exponential, rate: 1e-5}"))
    entry = load_recipe("base.yaml", ["priors.skin.weight={kind: linear, end: 3}"]).priors["skin"]
    assert entry.weight == Linear(start=0.0, end=3, until=1.0)


def test_shipped_names_and_paths_relative_to_the_extending_file(write):
    write(sub__near="extends: heads/eg3d_base\nseed: 7\n", top="extends: ./sub/near.yaml\n")
    recipe = load_recipe("top.yaml")
    assert recipe.seed == 7 and recipe.backbone.name == "eg3d"
    assert recipe.origin("backbone.name").startswith("recipes/heads/eg3d_base.yaml:")


def test_two_parents_may_share_a_parent(write):
    write(base=BASE, a="extends: ./base.yaml\nseed: 1\n", b="extends: ./base.yaml\nevaluation: {seed: 2}\n",
          top="extends: [./a.yaml, ./b.yaml]\n")  # fmt: skip
    assert load_recipe("top.yaml").evaluation.seed == 2


def test_overrides_are_yaml_applied_in_order_after_the_variant(write):
    write(top=BASE + SKIN + "variants: {strong: {priors: {skin: {weight: 9}}, seed: 4}}\n")
    recipe = load_recipe("top.yaml@strong", ["priors.skin.weight=50", "priors.skin.weight=5e1", "training.betas=[0, 0.5]"])
    assert (recipe.priors["skin"].weight, recipe.training.betas, recipe.seed) == (50.0, (0.0, 0.5), 4)
    assert recipe.origin("priors.skin.weight") == "override 2: priors.skin.weight=5e1"
    assert recipe.origin("seed") == "top.yaml:6 (variant strong)"
    assert recipe.variants == {} and recipe.source == "top.yaml@strong"


def test_a_variant_of_a_loaded_recipe_keeps_the_overrides(write):
    write(top=BASE + SKIN + "variants: {strong: {priors: {skin: {weight: 9}}, seed: 4}, same: {}}\n")
    recipe = load_recipe("top.yaml", ["seed=8"])
    strong = recipe.variant("strong")
    assert (strong.seed, strong.priors["skin"].weight) == (8, 9.0)
    assert recipe.difference(strong) == ["priors.skin.weight: 0.02 -> 9.0"]
    assert recipe.difference(recipe.variant("same")) == []
    with pytest.raises(RecipeError, match="did you mean 'strong'"):
        recipe.variant("strng")


def test_variant_by_argument_and_by_name_agree(write):
    write(top=BASE + "variants: {a: {seed: 4}, b: {seed: 5}}\n")
    assert load_recipe("top.yaml", variant="a").to_yaml() == load_recipe("top.yaml@a").to_yaml()
    with pytest.raises(RecipeError, match="two variants were chosen"):
        load_recipe("top.yaml@a", variant="b")


def test_paths_start_from_the_file_that_mentions_them(write, tmp_path):
    write(sub__base=BASE.replace("heads", "eg3d, path: faces.zip") + "evaluation: {inception_weights: ../w.pt}\n",
          top="extends: ./sub/base.yaml\ninit: ./start.safetensors\ndata: {truth: truth.zip}\n")  # fmt: skip
    for name in ("start.safetensors", "sub/faces.zip", "truth.zip", "here.zip"):
        (tmp_path / name).touch()
    recipe = load_recipe("top.yaml", ["data.held_out=here.zip"])
    assert recipe.data.path == str(tmp_path / "sub/faces.zip")
    assert recipe.data.truth == str(tmp_path / "truth.zip")
    assert recipe.data.held_out == str(tmp_path / "here.zip")
    assert recipe.init == str(tmp_path / "start.safetensors")
    assert recipe.evaluation.inception_weights == str(tmp_path / "w.pt")
    (tmp_path / "start.safetensors").unlink()
    assert load_recipe("top.yaml", check_files=False).init == recipe.init


def test_a_path_object_is_a_path(write, tmp_path):
    write(top=BASE)
    assert load_recipe(Path("top.yaml")).training.images == 1000
    assert load_recipe(tmp_path / "top.yaml").source == str(tmp_path / "top.yaml")


@pytest.mark.parametrize("name", shipped_recipes())
def test_resolved_text_gives_the_same_recipe(name, write, tmp_path):
    recipe = load_recipe(name, check_files=False)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml(origins=True))
    again = load_recipe("again.yaml", check_files=False)
    assert again == recipe and again.to_yaml() == recipe.to_yaml() and recipe.difference(again) == []
    assert Recipe.from_plain(recipe.to_plain()).to_yaml() == recipe.to_yaml()


def test_round_trip_of_everything_that_is_unlike_its_text(write, tmp_path):
    text = (
        BASE.replace("name: unet", "name: unet, weights: '5e-5'")
        + SKIN.replace("0.02", "{kind: steps, values: [1, 2.5], at_positions: [0, 10], unit: steps}").replace(
            "weight", "hardest: {kind: linear, start: 1, end: 0.5, until: 100}, weight"
        )
        + "second_view: {kind: near}\n"
    )
    write(top=text)
    recipe = load_recipe("top.yaml", check_files=False)
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = load_recipe("again.yaml", check_files=False)
    assert again == recipe and again.to_yaml() == recipe.to_yaml()
    assert isinstance(again.priors["skin"].options["hardest"], Linear)


def test_the_order_of_keys_does_not_depend_on_the_file(write):
    write(a=BASE, b="".join(reversed(BASE.splitlines(keepends=True))))
    assert load_recipe("a.yaml").to_yaml() == load_recipe("b.yaml").to_yaml()


def test_recipes_are_frozen(write):
    write(top=BASE)
    with pytest.raises(ValueError, match="frozen"):
        load_recipe("top.yaml").training.batch = 3


def test_a_file_whose_name_holds_an_at_sign(write):
    write(**{"my@recipe": BASE + "variants: {v: {seed: 4}}\n"})
    assert load_recipe("my@recipe.yaml").seed == 0
    assert load_recipe("my@recipe.yaml@v").seed == 4


def test_an_override_of_an_entrys_inside_leaves_the_variant_that_removed_it_alone() -> None:
    recipe = load_recipe("heads/eg3d_ssr_table1", ["priors.skin.weight=0.5", "priors.eyes.erosion=3"])
    assert recipe.variant("skin").priors["skin"].weight == 0.5
    assert recipe.variant("skin_eyes").priors["eyes"].options["erosion"] == 3
    assert set(recipe.variant("finetune").priors) == {"density_tv"}
    assert set(load_recipe("heads/eg3d_ssr_table1@skin", ["priors.eyes.erosion=3"]).priors) == {"skin", "density_tv"}
