"""Trains a tiny EG3D in one process or in several, and keeps the gradients of every phase of the first step.

    python processes_driver.py RECIPE OUT [--resume] [OVERRIDE ...]

Fabric's script launcher runs this very command again for each further process. The first process writes ``gradients.pt`` into the run:
by phase, and the number of processes under "world".
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import analytic  # noqa: F401  (registers the tests' backbone and segmenter)
import pytest
import torch
from priorzoo.core.recipe import load_recipe
from priorzoo.training.objective import Phase
from priorzoo.training.stepping import PhaseRunner
from priorzoo.training.terms import MicroBatch
from priorzoo.training.trainer import train

# Every lazy phase: an own-phase prior of the field, one of depth alone (it skips super-resolution), R1, a main prior with an interval whose
# mean is pooled over the batch, and augmentation with its controller.
RECIPE = """
seed: 5
backbone:
  name: eg3d
  z_dim: 8
  w_dim: 16
  plane_resolution: 16
  plane_channels: 4
  channel_base: 128
  channel_max: 16
  decoder_hidden: 8
  feature_channels: 8
  density_gain: 10.0
  noise: random
  samples_coarse: 6
  samples_fine: 6
  neural_resolution: 8
  image_resolution: 16
  superresolution: 2x
  superresolution_input: 8
  superresolution_channels: [8, 8]
  superresolution_noise: random
  discriminator_channel_base: 128
  discriminator_channel_max: 16
  discriminator_mapping_layers: 1
  discriminator_group: 2
segmenter: {name: analytic_colours}
data: {name: eg3d, path: heads.zip}
priors:
  skin: {name: ssr, region: [skin, hair], erosion: 1, empty: skip, scope: batch, interval: 3, weight: 0.5}
  density_tv: {name: density_tv, phase: own, interval: 2, weight: 0.1}
  depth_variance: {name: depth_variance, phase: own, interval: 4, tolerance: 0.0, weight: 0.1}
objective:
  r1: {gamma: 1.0, interval: 4}
  pose_swap: 0.5
  blur: 0.6
  label_noise: 0.2
  augmentation: {probability: 0.5, target: 0.6, images: 200, interval: 4}
training:
  images: 80
  batch: 4
  accelerator: cpu
  checkpoint: {every: 40}
  log_every: 4
  samples: null
  threads: 1
"""
ONE, TWO = ("training.micro_batch=2",), ("training.devices=2",)
PHASES = ["Gmain", "prior/density_tv", "prior/depth_variance", "Dmain", "R1"]


def train_here(recipe: Path, folder: Path, overrides: Sequence[str], resume: bool = False) -> None:
    """Train; phases of step 0 leave the gradients that their optimiser was given in ``gradients.pt``."""
    gradients: dict[str, Any] = {}
    plain = PhaseRunner.run

    def run(self: PhaseRunner, phase: Phase, micros: Sequence[MicroBatch]) -> None:
        plain(self, phase, micros)
        gradients["world"] = self.fabric.world_size
        if micros[0].step == 0:
            gradients[phase.name] = {name: p.grad.clone() for name, p in self.named(phase.part) if p.grad is not None}

    with patch.object(PhaseRunner, "run", run):
        train(load_recipe(str(recipe), overrides), folder, resume=resume, progress=False)
    if os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        torch.save(gradients, folder / "gradients.pt")


def python(*command: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in processes of their own and compare the exit code."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == code, done.stderr
    return done


def train_in_two(recipe: Path, folder: Path, *rest: str) -> subprocess.CompletedProcess[str]:
    """Train in two processes; ``rest`` are overrides and ``--resume``."""
    return python(__file__, str(recipe), str(folder), *TWO, *rest)


def losses(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log without times."""
    timing = ("seconds", "images_per_second")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def assert_same_losses(one: Path, two: Path) -> None:
    """Every logged number of every step agrees to 1e-3."""
    left, right = losses(one), losses(two)
    assert len(left) == len(right) == 20
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert b[name] == pytest.approx(a[name], rel=1e-3, abs=1e-5), (a["step"], name)


if __name__ == "__main__":
    recipe, folder, *rest = sys.argv[1:]
    train_here(Path(recipe), Path(folder), [word for word in rest if word != "--resume"], "--resume" in rest)
