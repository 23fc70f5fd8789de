"""A data set that does not fit the model is refused before anything is trained or written, with both sides shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from camera_file_writers import LABEL, folder
from priorzoo.core.errors import DataError
from priorzoo.core.recipe import Recipe
from priorzoo.data.mirror import mirror
from priorzoo.training.sources import open_sources
from priorzoo.training.trainer import train


def dataset(path: Path, side: int = 16, label: Any = LABEL) -> Path:
    folder(path, 2, side, side)
    (path / "dataset.json").write_text(json.dumps({"labels": [["0.png", label], ["1.png", label]]}))
    return path


def recipe(data: Path, **options: Any) -> Recipe:
    return Recipe.from_plain({
        "backbone": {"name": "eg3d", "image_resolution": 16, "neural_resolution": 16, "superresolution": "none"},
        "data": {"name": "eg3d", "path": str(data), **options},
        "training": {"images": 8, "batch": 4},
    })  # fmt: skip


CAMERAS = "25 numbers.*`priorzoo data pack IMAGES CAMERAS OUT.zip`"


@pytest.mark.parametrize(
    ("side", "label", "message"),
    [(32, LABEL, r"images of 32 x 32 pixels, the backbone makes 16 x 16 \(`priorzoo data pack --resolution 16`"),
     (16, LABEL[:16], r"'0\.png' must be 25 numbers, got 16 values; a camera label is"),
     (16, 3, "'0.png' must be 25 numbers, got int, as of a class"),
     (16, None, "'0.png' must be 25 numbers, got NoneType")],
)  # fmt: skip
def test_what_does_not_fit_is_refused_before_there_is_a_run(tmp_path: Path, side: int, label: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(recipe(dataset(tmp_path / "set", side, label)), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "recipe.yaml").exists() and not list(tmp_path.rglob("checkpoints"))


def test_sets_without_labels_say_what_to_do(tmp_path: Path) -> None:
    path = dataset(tmp_path / "set")
    (path / "dataset.json").write_text('{"labels": null}')
    with pytest.raises(DataError, match=rf"dataset\.json has no labels; a camera \({CAMERAS}"):
        open_sources(recipe(path), tmp_path)
    (path / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"holds no dataset\.json, the file of camera labels: `priorzoo data pack"):
        open_sources(recipe(path), tmp_path)


def test_mirrored_once_is_enough(tmp_path: Path) -> None:
    out = tmp_path / "both.zip"
    mirror(dataset(tmp_path / "set"), out)
    assert len(open_sources(recipe(out), tmp_path).train) == 4
    with pytest.raises(DataError, match=r"both\.zip: holds mirror images already, e\.g\. '0_mirror\.png': set data\.mirror to false"):
        open_sources(recipe(out, mirror=True), tmp_path)


def test_what_measures_has_the_size_of_what_trains(tmp_path: Path) -> None:
    held_out = dataset(tmp_path / "held_out", 32)
    with pytest.raises(DataError, match=r"held_out: images of 32 pixels a side, those that train have 16"):
        open_sources(recipe(dataset(tmp_path / "set"), held_out=str(held_out)), tmp_path)
