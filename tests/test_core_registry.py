"""The registries: names, lookalikes, double names, plug-ins by entry point, broken ones."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import priorzoo.core.registry as registry_module
import pytest
from priorzoo.core.errors import UnknownNameError, did_you_mean, nearest_name
from priorzoo.core.registry import BACKBONES, ESTIMATORS, PRIORS, SEGMENTERS, Registry
from priorzoo.priors.ssr import SSR


class Outsider:
    """A class that a plug-in offers."""

    registry_name = ""

    def __init__(self, *, strength: float = 1.0) -> None:
        self.strength = strength


def offer(monkeypatch: pytest.MonkeyPatch, **entries: str) -> Registry:
    """A fresh registry of priors for which these entry points are installed."""
    points = [EntryPoint(name, value, "priorzoo.priors") for name, value in entries.items()]
    monkeypatch.setattr(registry_module, "entry_points", lambda *, group: points if group == "priorzoo.priors" else [])
    return Registry("priors", "priors")


def test_shipped_parts_are_there() -> None:
    assert {"ssr", "sr", "density_tv"} <= set(PRIORS.names())
    assert "eg3d" in BACKBONES.names() and {"unet", "truth"} <= set(SEGMENTERS.names()) and "heads" in ESTIMATORS.names()
    assert PRIORS.get("ssr") is SSR and SSR.registry_name == "ssr"
    assert PRIORS.names("s*r") == sorted(n for n in PRIORS.names() if n.startswith("s") and n.endswith("r"))
    assert PRIORS.origin("ssr") == "priorzoo"


def test_create_hands_options_on() -> None:
    assert PRIORS.create("ssr", region="skin", erosion=5).erosion == 5


def test_unknown_name_gives_the_nearest_and_all() -> None:
    with pytest.raises(UnknownNameError, match=r"priors: 'density_vt' is not registered, did you mean 'density_tv'.*known: .*ssr"):
        PRIORS.get("density_vt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("l1-alt", "EG3D's command line accepts this regulariser, its released code computes nothing for it"),
        ("total_variation", "EG3D's command line accepts this regulariser, its released code computes nothing for it"),
        ("l1", "EG3D's regulariser of this name is density_tv"),
        ("monotonic-detach", "EG3D's regulariser of this name is density_monotonic with form: detach"),
    ],
)
def test_names_that_mean_nothing_here_are_refused_with_the_reason(name: str, reason: str) -> None:
    assert name not in PRIORS.names()
    with pytest.raises(UnknownNameError) as caught:
        PRIORS.create(name)
    assert f"priors: {name!r} is refused: {reason}" in str(caught.value)


def test_a_refused_name_may_be_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = offer(monkeypatch)
    registry.refuse("total-variation", "nothing computes it")
    assert registry.refusal("total_variation") == "nothing computes it" and registry.refusal("other") is None
    registry.register("total_variation")(Outsider)
    assert registry.get("total_variation") is Outsider and registry.refusal("total_variation") is None


def test_a_name_is_taken_once() -> None:
    registry = Registry("priors", "priors")
    registry.register("twice")(Outsider)
    registry.register("twice")(Outsider)  # the same class again, as after a reload
    with pytest.raises(ValueError, match=r"'twice' is taken by .*Outsider; .*SSR needs another"):
        registry.register("twice")(SSR)


def test_entry_points_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = offer(monkeypatch, outside=f"{__name__}:Outsider")
    monkeypatch.setitem(__import__("sys").modules, __name__, _this_module())
    assert registry.get("outside").__name__ == "Outsider"
    assert registry.create("outside", strength=2.0).strength == 2.0
    assert registry.broken() == {}


def test_a_broken_plug_in_breaks_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = offer(monkeypatch, absent="no_such_package_anywhere:Prior", lacking="math:Prior")
    with pytest.raises(UnknownNameError, match=r"'absent' comes from a plug-in that failed to import.*no_such_package"):
        registry.get("absent")
    assert set(registry.broken()) == {"absent", "lacking"} and "AttributeError" in registry.broken()["lacking"]


def test_nearest_names() -> None:
    assert nearest_name("erosoin", ["erosion", "region"]) == "erosion"
    assert did_you_mean("erosoin", ["erosion"]) == ", did you mean 'erosion'?"
    assert did_you_mean("qqq", ["erosion"]) == ""


def _this_module() -> Any:
    """What an installed package would be: an importable module that holds the class."""
    from types import SimpleNamespace

    return SimpleNamespace(Outsider=Outsider)
