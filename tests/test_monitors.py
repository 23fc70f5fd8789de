"""What is looked at while a run trains."""

from __future__ import annotations

import json
from pathlib import Path

import analytic  # noqa: F401  registers the analytic backbone and segmenter
import numpy as np
import pytest
from PIL import Image
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.data.heads import write_heads
from priorzoo.export.markdown import results_table
from priorzoo.export.monitors import default_monitors, jitter_in_pixels
from priorzoo.training.journal import read_metrics
from priorzoo.training.measuring import measure_run
from priorzoo.training.run import build_backbone
from priorzoo.training.trainer import train

RECIPE = """
backbone: {name: analytic_sphere}
data: {name: eg3d, path: heads.zip, held_out: heads.held_out.zip, truth: heads.truth.zip}
segmenter: {name: analytic_colours}
training: {images: 8, batch: 4, samples: {every: 4, count: 2}, checkpoint: {every: 8}, threads: 1, accelerator: cpu}
evaluation: {every: 8, images: 8, batch: 4, geometry_samples: 4, held_out: 2, inversion: {steps: 2}, sampling: {coarse: 6, fine: 0}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    write_heads(tmp_path / "heads.zip", 8, 16, held_out=4, supersample=1)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "tiny.yaml")


def test_training_measures_by_the_same_function_as_evaluate(recipe: Recipe, tmp_path: Path) -> None:
    run = train(recipe, tmp_path / "run", progress=False, monitors=default_monitors(recipe))
    while_training = json.loads((run.folder / "results" / "evaluation-000000008.json").read_text())
    afterwards = measure_run(run, run.folder / "data")
    afterwards.save(tmp_path / "again.json")
    again = json.loads((tmp_path / "again.json").read_text())
    assert while_training["columns"] == again["columns"] and while_training["protocol"] == again["protocol"]
    last = [record for record in read_metrics(run.folder) if "evaluation/truth_iou" in record]
    assert len(last) == 1 and last[0]["images"] == 8
    assert last[0]["evaluation/truth_iou"] == afterwards.value("truth_iou").value


def test_samples_and_jitter_are_logged(recipe: Recipe, tmp_path: Path) -> None:
    run = train(recipe, tmp_path / "run", progress=False, monitors=default_monitors(recipe))
    sheets = sorted(path.name for path in (run.folder / "samples").iterdir())
    assert sheets == ["000000000.png", "000000004.png", "000000008.png"]
    assert np.asarray(Image.open(run.folder / "samples" / sheets[-1])).std() > 1
    assert [r["images"] for r in read_metrics(run.folder) if "depth/jitter" in r] == [0, 4, 8]


def test_closed_forms_have_no_jitter(recipe: Recipe) -> None:
    """The ball's depth does not come from samples: two renders of it are one."""
    assert jitter_in_pixels(build_backbone(recipe), 0)["depth/jitter"] == 0.0


def test_a_results_file_becomes_a_table() -> None:
    column = {"value": {"value": 21.5}, "difference_to_control": {"value": -0.25, "low": -0.5, "high": 0.0}}
    results = {
        "control": "finetune",
        "rows": [
            {"name": "finetune", "switches": {"R1": True, "skin": False}, "columns": {"truth_normal_skin": {"value": {"value": 21.75}}}},
            {"name": "skin", "switches": {"R1": True, "skin": True}, "columns": {"truth_normal_skin": column}},
        ],
    }
    lines = results_table(results).splitlines()
    assert lines[0] == "| model | R1 | skin | normals, skin (deg) ↓ |"
    assert lines[2] == "| finetune (control) | x |  | 21.8 |"
    assert lines[3] == "| skin | x | x | 21.5<br>−0.250 [−0.500, 0] |"
