"""What a card of shipped weights says is what the run, its checkpoint and its evaluation say."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from priorzoo.core.recipe import Recipe
from priorzoo.metrics.frontal_parts import PARTS
from priorzoo.metrics.protocol import Result
from priorzoo.training.run import load_run
from priorzoo.training.shipping import main
from priorzoo.training.trainer import train

EG3D = {
    "name": "eg3d", "z_dim": 4, "w_dim": 8, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 8,
    "decoder_hidden": 4, "superresolution": "none", "feature_channels": 3, "neural_resolution": 16, "image_resolution": 16,
    "samples_coarse": 4, "samples_fine": 4, "discriminator_channel_base": 64, "discriminator_channel_max": 8,
}  # fmt: skip


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    recipe = Recipe.from_plain({
        "seed": 3,
        "backbone": EG3D,
        "data": {"name": "heads", "images": 4, "resolution": 16, "held_out": 1},
        "training": {"images": 4, "batch": 2, "log_every": 2, "samples": None, "threads": 1},
    })  # fmt: skip
    train(recipe, tmp_path / "run", progress=False)
    return tmp_path / "run"


def evaluated(run: Path) -> None:
    """Put a result where `priorzoo evaluate` puts it."""
    true = {"sr_skin": np.array([5.0, 5.0])}
    Result("run", {"seed": 7}, {"sr_skin": np.array([1.0, 3.0])}, true).save(run / "results" / "evaluation.json")


def test_the_card_says_how_the_weights_were_made_and_what_they_measure(run_folder: Path, tmp_path: Path) -> None:
    path = run_folder / "checkpoints" / "000000004" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": 12.34}))
    evaluated(run_folder)
    record = json.loads((run_folder / "run.json").read_text())
    del record["seconds"]  # as of a run that was stopped, whose time stands in its checkpoint
    (run_folder / "run.json").write_text(json.dumps(record))
    assert main([str(run_folder), str(tmp_path / "heads_small")]) == 0
    card = json.loads((tmp_path / "heads_small" / "card.json").read_text())
    assert card["name"] == "heads_small" and card["seed"] == 3 and card["images"] == 4
    assert card["seconds"] == pytest.approx(12.34, abs=0.05)
    assert card["command"] == record["command"] and card["hardware"] == record["hardware"]
    assert card["protocol"] == {"seed": 7}
    measure = card["measures"]["sr_skin"]
    assert (measure["value"], measure["true"], measure["count"], measure["unit"]) == (2.0, 5.0, 2, "px^2")
    assert "terms" not in measure
    assert [line["images"] for line in card["log_end"]] == [2, 4]
    assert set(card["frontal_parts"]) == {"segmenter", "samples", "all", *PARTS}
    assert card["sha256"]["model.safetensors"] == hashlib.sha256((tmp_path / "heads_small/model.safetensors").read_bytes()).hexdigest()
    assert str(tmp_path) not in json.dumps(card)


def test_shipped_weights_open_as_the_run_does(run_folder: Path, tmp_path: Path) -> None:
    evaluated(run_folder)
    main([str(run_folder), str(tmp_path / "shipped")])
    own, shipped = load_run(run_folder), load_run(tmp_path / "shipped")
    assert shipped.images == own.images == 4
    stored = shipped.tensors()
    assert {name.split(".")[0] for name in stored} == {"generator", "average", "discriminator"}
    assert all(torch.equal(own.tensors()[name], tensor) for name, tensor in stored.items())
    assert shipped.recipe.difference(own.recipe) == []


def test_weights_without_measures_of_their_own_are_not_shipped(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "shipped"
    assert main([str(run_folder), str(out)]) == 2
    assert "the weights are not measured; run `priorzoo evaluate" in capsys.readouterr().err
    evaluated(run_folder)
    os.utime(run_folder / "results" / "evaluation.json", (1, 1))
    assert main([str(run_folder), str(out)]) == 2
    assert "older than the newest checkpoint, 000000004" in capsys.readouterr().err
    assert not out.exists()
    assert main([str(run_folder)]) == 2
    result = run_folder / "results" / "evaluation.json"
    result.rename(result.with_name("evaluation-000000004.json"))  # named after the checkpoint: these weights' own
    assert main([str(run_folder), str(out)]) == 0
