"""Options are checked against the class, and needs against what there is, without building anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from annotated_types import Ge, Le
from broken_recipes import BASE
from priorzoo import load_recipe
from priorzoo.core.errors import PriorzooError, RecipeError
from priorzoo.core.recipe.annotations import describe_annotation, fit, option_fields
from priorzoo.core.recipe.parts import met_options
from priorzoo.core.registry import BACKBONES, ESTIMATORS, PRIORS, SEGMENTERS
from priorzoo.core.schedule import Linear, Schedule, Steps
from torch import nn


class NeverBuilt:
    """A part that must not be built while a recipe is read."""

    def __init__(self, **options: Any) -> None:
        raise AssertionError("built")


class Wide(NeverBuilt, nn.Module):
    """A prior with an option of every type."""

    def __init__(
        self,
        *,
        strength: float | Schedule,
        form: Literal["paper", "as_published"] = "paper",
        side: Annotated[int, Ge(1), Le(9)] = 3,
        names: str | Sequence[str] = ("skin",),
        pair: tuple[float, float] = (0, 1),
        table: dict[str, float] | None = None,
        weights: Path | None = None,
        flag: bool = False,
        buffers: Sequence[str] = ("depth",),
    ) -> None:
        super().__init__()

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        return frozenset(options["buffers"])

    @classmethod
    def check_options(cls, **options: Any) -> None:
        if options["pair"][0] > options["pair"][1]:
            raise PriorzooError("wide: pair must grow")


class Flat(NeverBuilt, nn.Module):
    """A backbone that renders raw images and depth."""

    def __init__(self, *, depth: bool = True) -> None:
        super().__init__()

    @classmethod
    def provides(cls, **options: Any) -> frozenset[str]:
        return frozenset({"image_raw", "opacity", "rays"} | ({"depth"} if options.get("depth", True) else set()))


class Seer(NeverBuilt, nn.Module):
    """A segmenter of two classes."""

    def __init__(self, *, reads: Literal["image", "image_raw"] = "image") -> None:
        super().__init__()

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        return frozenset({options.get("reads", "image")})

    @classmethod
    def class_names(cls, **options: Any) -> tuple[str, ...]:
        return ("background", "dog")

    @classmethod
    def reads_generated_images(cls) -> bool:
        return True


@pytest.fixture(autouse=True)
def registered(monkeypatch, tmp_path):
    """The classes above, known for the length of a test."""
    monkeypatch.chdir(tmp_path)
    for registry, name, cls in ((PRIORS, "wide", Wide), (BACKBONES, "flat", Flat), (SEGMENTERS, "seer", Seer)):
        registry.names()
        monkeypatch.setitem(registry._classes, name, cls)


def read(priors: str = "{}", backbone: str = "{name: flat}", more: str = "") -> Any:
    Path("r.yaml").write_text(f"backbone: {backbone}\npriors: {priors}\ntraining: {{images: 8}}\n{more}")
    return load_recipe("r.yaml")


def test_every_type_arrives_as_itself():
    entry = read("{w: {name: wide, weight: 1, strength: 2, form: as_published, side: 4, names: [a, b], pair: [1, 2], table: {a: 1},"
                 " weights: w.pt, flag: true}}").priors["w"]  # fmt: skip
    assert entry.options == {
        "strength": 2.0, "form": "as_published", "side": 4, "names": ["a", "b"], "pair": (1.0, 2.0), "table": {"a": 1.0},
        "weights": Path.cwd() / "w.pt", "flag": True, "buffers": ["depth"],
    }  # fmt: skip
    assert list(entry.options) == list(option_fields(Wide)[0])


def test_defaults_stand_in_the_resolved_recipe():
    recipe = read("{w: {name: wide, weight: 1, strength: 2}}")
    assert recipe.to_plain()["priors"]["w"] == {
        "name": "wide", "weight": 1.0, "interval": 1, "phase": "main", "strength": 2.0, "form": "paper", "side": 3,
        "names": ["skin"], "pair": [0.0, 1.0], "table": None, "weights": None, "flag": False, "buffers": ["depth"],
    }  # fmt: skip


def test_any_number_of_a_prior_may_follow_a_schedule():
    scheduled = "strength: {kind: cosine, until: 9}, side: {kind: steps, values: [2, 4], at_positions: [0, 8]}"
    entry = read(f"{{w: {{name: wide, weight: {{kind: linear, end: 3}}, {scheduled}}}}}")
    assert isinstance(entry.priors["w"].weight, Linear)
    assert {k for k, v in entry.priors["w"].options.items() if isinstance(v, Schedule)} == {"strength", "side"}


def test_options_are_checked_together_as_training_meets_them():
    options = {"a": Steps(values=(1, 2), at_positions=(0, 10), unit="steps"), "b": Linear(end=4.0, begin=40, until=80), "c": "same"}
    assert met_options(options, batch=8, images=72) == [
        {"a": 1, "b": 0.0, "c": "same"}, {"a": 1, "b": 3.2, "c": "same"}, {"a": 2, "b": 4.0, "c": "same"},
    ]  # fmt: skip
    assert met_options({"b": Linear(until=math.inf)}, batch=1, images=5) == [{"b": 0.0}]


@pytest.mark.parametrize(
    ("option", "key", "says"),
    [
        ("form: papre", "form", "did you mean 'paper'"),
        ("side: 12", "side", "an integer >= 1 <= 9"),
        ("side: {kind: steps, values: [2, 12], at_positions: [0, 8]}", "side.values", "out of range"),
        ("flag: {kind: linear}", "flag", "true or false"),
        ("names: 3", "names", "text or a list of (text)"),
        ("pair: [1]", "pair", "a list of 2 (a number, a number)"),
        ("pair: [2, 1]", "pair", "pair must grow"),
        ("table: {a: x}", "table", "a mapping of names to (a number) or null"),
        ("weights: 5", "weights", "a path or null"),
        ("strength: .nan", "strength", "not a number"),
    ],
)
def test_a_wrong_option_is_named(option, key, says):
    strength = "" if option.startswith("strength") else "strength: 2, "
    with pytest.raises(RecipeError) as caught:
        read(f"{{w: {{name: wide, weight: 1, {strength}{option}}}}}")
    assert str(caught.value).startswith(f"r.yaml:2: priors.w.{key}: ") and says in str(caught.value)


def test_options_kept_in_a_dataclass_and_open_ones():
    @dataclass
    class Kept:
        size: Annotated[int, Ge(2)] = 4

    class WithDataclass(Flat):
        Options = Kept

        def __init__(self, **options: Any) -> None:
            super().__init__()

    class Child(Flat):
        def __init__(self, *, extra: int = 1, **others: Any) -> None:
            super().__init__(**others)

    class Open(nn.Module):
        def __init__(self, **options: Any) -> None:
            super().__init__()

    assert list(option_fields(WithDataclass)[0]) == ["size"]
    assert list(option_fields(Child)[0]) == ["extra", "depth"]
    assert option_fields(Open) == ({}, True)
    assert option_fields(nn.Module) == ({}, False)


def test_annotations_in_words_and_fits():
    assert describe_annotation(Annotated[float, Ge(0)] | None) == "a number >= 0 or null"
    assert fit([1, 2], tuple[int, ...]) == (1, 2)
    for value, annotation in ((True, int), (1.0, int), ("1", int), (1, str), (1, bool), ([1], str)):
        with pytest.raises(ValueError):
            fit(value, annotation)


@pytest.mark.parametrize(
    ("buffers", "backbone", "more", "says"),
    [
        ("depth", "{name: flat, depth: false}", "", "prior wide needs 'depth', which is not provided by backbone flat with these options;"
         " got a need that is not met; allowed: a backbone that does: "),
        ("points", "{name: flat, depth: false}", "", "(made from depth)"),
        ("weights", "{name: flat}", "", "needs 'weights', which is not provided"),
        ("segmentation", "{name: flat}", "", "segmenter: {name: ...} with one of "),
        ("segmentation", "{name: flat}", "segmenter: {name: seer}\n", "reads image, which backbone flat does not provide"),
        ("estimated_depth", "{name: flat}", "", "needs a shape estimator"),
        ("other_view.depth", "{name: flat}", "", "second_view: {kind: near, mirrored or frontal}"),
        ("other_view.segmentation", "{name: flat}", "second_view: {kind: near}\n", "needs a segmenter"),
        ("dpeth", "{name: flat}", "", "is no buffer of a scene"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("phase", ["main", "own"])
def test_a_need_that_nothing_meets_is_refused_with_the_remedy(buffers, backbone, more, says, phase):
    with pytest.raises(RecipeError) as caught:
        read(f"{{w: {{name: wide, weight: 1, strength: 2, phase: {phase}, buffers: [{buffers}]}}}}", backbone, more)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("buffers", "more"),
    [
        ("depth, background_transmittance", ""), ("points", ""), ("segmentation", "segmenter: {name: seer, reads: image_raw}\n"),
        ("other_view.depth", "second_view: {kind: mirrored}\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("phase", ["main", "own"])
def test_needs_that_are_met_pass(buffers, more, phase):
    entry = read(f"{{w: {{name: wide, weight: 1, strength: 2, phase: {phase}, buffers: [{buffers}]}}}}", more=more).priors["w"]
    assert entry.interval == 1


def test_a_plugin_that_failed_to_import_says_so(monkeypatch):
    monkeypatch.setitem(ESTIMATORS._broken, "lost", "lost.py: ImportError: no module named lost")
    with pytest.raises(RecipeError, match=r"failed to import .*no module named lost"):
        read(more="estimator: {name: lost}\n")


def test_a_valid_recipe_builds_nothing():
    # NeverBuilt raises in __init__: reading the recipe of all three parts is the test.
    read("{w: {name: wide, weight: 1, strength: 2}}", more="segmenter: {name: seer, reads: image_raw}\n")
    with pytest.raises((AssertionError, TypeError)):
        PRIORS.create("wide", strength=1.0)


def test_base_is_whole():
    Path("r.yaml").write_text(BASE)
    assert load_recipe("r.yaml").segmenter.name == "unet"
