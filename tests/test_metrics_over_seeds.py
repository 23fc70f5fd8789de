"""Trainings that differ in the seed alone: grouped by recipe, averaged and compared over seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import one_hot_segmentation
from priorzoo.cli.main import main
from priorzoo.core.errors import PriorzooError
from priorzoo.core.recipe import Recipe
from priorzoo.core.scene import Scene
from priorzoo.metrics.over_seeds import Seeds, check_seeds
from priorzoo.metrics.protocol import Result
from priorzoo.metrics.shapes import against_segmentation


def result(iou: float, sr: float = 0.0, protocol: int = 0) -> Result:
    terms = {"truth_iou": np.array([iou - 0.1, iou + 0.1]), "sr_skin": np.array([sr, sr])}
    return Result("run", {"version": protocol}, terms, {"sr_skin": np.array([5.0, 5.0])})


def test_means_and_differences_are_over_seeds() -> None:
    control = Seeds("control", {0: result(0.5, 9), 1: result(0.6, 8), 2: result(0.7, 7)})
    other = Seeds("other", {0: result(0.8, 4), 1: result(0.8, 5), 2: result(0.8, 7)})
    value = control.value("truth_iou")
    assert value.value == pytest.approx(0.6) and value.count == 3
    assert value.high - value.value == pytest.approx(4.302653 * 0.1 / 3**0.5, rel=1e-5)  # t(0.975, 2) s / sqrt(3)
    difference = other.difference(control, "truth_iou")
    assert difference.value == pytest.approx(0.2) and difference.count == 3
    # Distances to the true 5: other 1, 0, 2; control 4, 3, 2.
    assert other.difference(control, "sr_skin").value == pytest.approx((-3 - 3 + 0) / 3)
    assert check_seeds([control, other]) == ["truth_iou", "sr_skin"]


def test_only_common_seeds_and_equal_protocols_are_compared() -> None:
    a, b = Seeds("a", {0: result(0.5), 1: result(0.6)}), Seeds("b", {1: result(0.9), 2: result(0.1)})
    assert a.difference(b, "truth_iou").count == 1
    with pytest.raises(PriorzooError, match=r"no training seed in common: \[0\] and \[2\]"):
        Seeds("a", {0: result(0.5)}).difference(Seeds("b", {2: result(0.5)}), "truth_iou")
    with pytest.raises(PriorzooError, match="protocol field `version`"):
        check_seeds([a, Seeds("b", {0: result(0.5, protocol=1)})])


def make_run(folder: Path, seed: int, batch: int, iou: float) -> str:
    plain = {"seed": seed, "backbone": {"name": "analytic_sphere"}, "training": {"images": 8, "batch": batch}}
    (folder / "results").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(Recipe.from_plain(plain).to_yaml())
    (folder / "checkpoints" / "8").mkdir(parents=True)
    (folder / "checkpoints" / "8" / "state.json").write_text('{"images": 8}')
    result(iou).save(folder / "results" / "evaluation.json")
    return str(folder)


def test_the_command_groups_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / f"{name}-{seed}", seed, batch, 0.5 + 0.1 * (batch == 4))
            for name, batch in (("a", 8), ("b", 4)) for seed in (0, 1)]  # fmt: skip
    assert main(["compare", *runs, "--over-seeds", "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [(row["name"], row["seeds"]) for row in plain["rows"]] == [("a", [0, 1]), ("b", [0, 1])]
    assert plain["rows"][1]["columns"]["truth_iou"]["difference_to_control"]["value"] == pytest.approx(0.1)
    assert main(["compare", *runs, "--over-seeds"]) == 0
    assert "2 seeds" in capsys.readouterr().out
    again = make_run(tmp_path / "again-0", 0, 8, 0.5)
    assert main(["compare", *runs, again, "--over-seeds"]) == 2
    assert "the same recipe and the same seed 0" in capsys.readouterr().err


def test_overlap_with_what_the_segmenter_sees() -> None:
    ids = torch.zeros(2, 4, 4, dtype=torch.int64)
    ids[:, :2] = 1
    opacity = torch.zeros(2, 1, 4, 4)
    opacity[0, :, :2] = 1.0  # the head alone
    opacity[1] = 1.0  # and a wall behind it
    scene = Scene(None, opacity=opacity, segmentation=one_hot_segmentation(ids))
    assert against_segmentation(scene)["segmented_iou"].tolist() == [1.0, 0.5]
