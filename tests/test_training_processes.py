"""Two processes are one: the same recipe on two processes gives what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from priorzoo.data.heads import write_heads
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint

RECIPE = """
seed: 5
backbone: {name: analytic_sphere}
segmenter: {name: analytic_colours}
data: {name: eg3d, path: heads.zip}
priors:
  skin: {name: ssr, region: skin, erosion: 1, empty: skip, weight: 0.5}
  density_tv: {name: density_tv, phase: own, interval: 2, weight: 0.1}
objective: {r1: {gamma: 1.0, interval: 2}, pose_swap: 0.5}
training:
  images: 16
  batch: 4
  accelerator: cpu
  checkpoint: {every: 100}
  samples: null
  threads: 1
"""

DRIVER = "import analytic, sys; from priorzoo.cli.main import main; sys.exit(main(sys.argv[1:]))"


def run(folder: Path, recipe: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Train in processes of their own; the script launcher runs this very command again for each of them."""
    driver = recipe.parent / "driver.py"
    driver.write_text(DRIVER)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(driver), "train", str(recipe), *overrides, "--out", str(folder)]
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_heads(folder / "heads.zip", images=6, resolution=16, held_out=0, supersample=1)
    (folder / "two.yaml").write_text(RECIPE)
    return folder / "two.yaml"


def test_two_processes_train_what_one_does(recipe: Path, tmp_path: Path) -> None:
    """One step with every phase: weights, running means and the squared gradients that Adam keeps."""
    one = run(tmp_path / "one", recipe, "training.images=4")
    two = run(tmp_path / "two", recipe, "training.images=4", "training.devices=2")
    assert one.returncode == 0, one.stderr
    assert two.returncode == 0, two.stderr
    first, second = (read_checkpoint(checkpoint_folders(tmp_path / name)[-1]) for name in ("one", "two"))
    assert any("w_avg" in name and bool(tensor.any()) for name, tensor in first.model.items())
    for name, tensor in first.model.items():
        assert torch.allclose(second.model[name], tensor, rtol=1e-4, atol=1e-5), name
    for name, tensor in first.optimisers.items():
        if name.endswith("exp_avg_sq"):  # gradients that nearly cancel are told apart by their rounding
            assert float((second.optimisers[name] - tensor).abs().max()) <= 0.02 * float(tensor.abs().max()) + 1e-9, name


def test_an_error_stops_both_processes(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    done = run(tmp_path / "taken", recipe, "training.devices=2", "data.path=/nowhere.zip")
    assert done.returncode == 2
    assert "nowhere.zip" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "taken" / "recipe.yaml").exists()
