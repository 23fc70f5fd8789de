"""A killed run continues as if it had never stopped: weights, averages, optimisers, log, bit for bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from priorzoo.core.errors import RunError
from priorzoo.core.recipe import load_recipe
from priorzoo.data.heads import write_heads
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.trainer import train

# Every kind of state is alive: SSR on a schedule in the main phase, lazy TV in its own, R1, average, data order with mirror images
# and several passes over the data.
RECIPE = """
extends: heads/eg3d_ssr
seed: 3
data: {name: eg3d, path: heads.zip, mirror: true}
priors:
  skin: {weight: {kind: linear, start: 0.0, end: 0.02, until: 40}}
  density_tv: {interval: 3}
objective: {r1: {gamma: 1.0, interval: 4}}
training:
  images: 48
  batch: 4
  average: {half_life: 20, ramp_up: null}
  checkpoint: {every: 12, keep: 2}
  log_every: 8
  threads: 1
"""

DRIVER = """
import os, signal, sys
from priorzoo.core.recipe import load_recipe
from priorzoo.training import checkpoints, trainer

moment, at, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if moment == "step":
    plain = trainer.Trainer.train_step
    def step(self):
        if self.step == at:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self)
    trainer.Trainer.train_step = step
if moment == "writing":
    whole = checkpoints._to_disk
    def to_disk(path):
        if path.name == "optimisers.safetensors" and f"{at:09d}" in str(path.parent):
            path.write_bytes(path.read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)
        whole(path)
    checkpoints._to_disk = to_disk
trainer.train(load_recipe(sys.argv[4]), folder, resume=True, progress=False)
"""


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    write_heads(folder / "heads.zip", images=12, resolution=64, held_out=0, supersample=1)
    (folder / "tiny.yaml").write_text(RECIPE)
    return folder / "tiny.yaml"


@pytest.fixture(scope="module")
def uninterrupted(recipe_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "whole"
    train(load_recipe(str(recipe_file)), folder, progress=False)
    return folder


def _drive(recipe: Path, folder: Path, moment: str, at: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DRIVER, moment, str(at), str(folder), str(recipe)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)


def _differences(a: Path, b: Path) -> list[str]:
    """Names of everything in which two finished runs differ."""
    one, two = (read_checkpoint(checkpoint_folders(folder)[-1]) for folder in (a, b))
    out = []
    for kind in ("model", "optimisers"):
        left, right = getattr(one, kind), getattr(two, kind)
        out += sorted(left.keys() ^ right.keys())
        out += [k for k in left if k in right and not torch.equal(left[k], right[k])]
    out += [k for k in one.state if k != "seconds" and one.state[k] != two.state[k]]
    timing = ("seconds", "images_per_second")
    logs = [
        [{k: v for k, v in json.loads(line).items() if k not in timing} for line in (f / "metrics.jsonl").read_text().splitlines()]
        for f in (a, b)
    ]
    return out + (["metrics.jsonl"] if logs[0] != logs[1] else [])


def test_killed_three_times_ends_as_uninterrupted(recipe_file: Path, uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    before = _drive(recipe_file, folder, "step", 2)  # before the first checkpoint
    assert before.returncode == -signal.SIGKILL and not checkpoint_folders(folder)
    writing = _drive(recipe_file, folder, "writing", 24)  # while the second checkpoint is written
    assert writing.returncode == -signal.SIGKILL and "no checkpoint yet; the run starts over" in writing.stderr
    assert [p.name for p in checkpoint_folders(folder)] == ["000000012"]
    assert (folder / "checkpoints" / ".partial-000000024").exists()
    between = _drive(recipe_file, folder, "step", 8)  # two steps after the second checkpoint, in the middle of a logging interval
    assert between.returncode == -signal.SIGKILL and "continues after 12 of 48 images" in between.stderr
    end = _drive(recipe_file, folder, "never", 0)
    assert end.returncode == 0, end.stderr
    assert _differences(uninterrupted, folder) == []
    again = train(load_recipe(str(recipe_file)), folder, resume=True, progress=False)
    assert again.images == 48


def test_an_altered_stream_is_noticed_in_the_result(recipe_file: Path, uninterrupted: Path, tmp_path: Path) -> None:
    """The comparison above can fail: one altered digit in the streams' state gives another run."""
    folder = tmp_path / "altered"
    assert _drive(recipe_file, folder, "step", 8).returncode == -signal.SIGKILL
    path = checkpoint_folders(folder)[-1] / "state.json"
    text = path.read_text()
    assert '"seed": 3' in text
    path.write_text(text.replace('"seed": 3', '"seed": 2'))
    train(load_recipe(str(recipe_file)), folder, resume=True, progress=False)
    differing = _differences(uninterrupted, folder)
    assert any(name.startswith("generator.") for name in differing)


def test_a_finished_run_says_so(recipe_file: Path, uninterrupted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(load_recipe(str(recipe_file)), uninterrupted, resume=True, progress=False)
    assert "this run is finished; nothing to do" in capsys.readouterr().err


def test_a_run_is_not_overwritten_nor_continued_with_another_recipe(recipe_file: Path, uninterrupted: Path, tmp_path: Path) -> None:
    recipe = load_recipe(str(recipe_file))
    with pytest.raises(RunError, match="holds a run already; continue it with --resume"):
        train(recipe, uninterrupted, progress=False)
    changed = load_recipe(str(recipe_file), ["training.learning_rate.generator=0.001", "training.images=52"])
    with pytest.raises(RunError) as caught:
        train(changed, uninterrupted, resume=True, progress=False)
    text = str(caught.value)
    assert "training.learning_rate.generator" in text and "0.00125" in text and "--allow-changes" in text
