"""A run goes on with another number of processes, and under torchrun and srun."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from priorzoo.data.heads import write_heads
from priorzoo.training.checkpoints import checkpoint_folders
from processes_driver import ONE, RECIPE, assert_same_losses, python, train_here, train_in_two


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    write_heads(folder / "heads.zip", images=6, resolution=16, held_out=0, supersample=1)
    (folder / "two.yaml").write_text(RECIPE)
    return folder / "two.yaml"


@pytest.fixture(scope="module")
def one(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty steps in one process."""
    folder = tmp_path_factory.mktemp("run") / "one"
    train_here(recipe, folder, ONE)
    return folder


def forget_the_second_half(run: Path) -> None:
    """Leave the run as if it had been killed after its first checkpoint."""
    shutil.rmtree(checkpoint_folders(run)[-1])
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "status": "running"}))


def test_from_one_process_to_two(recipe: Path, one: Path, tmp_path: Path) -> None:
    shutil.copytree(one, tmp_path / "run")
    forget_the_second_half(tmp_path / "run")
    done = train_in_two(recipe, tmp_path / "run", "--resume")
    assert "continues after 40 of 80 images" in done.stderr
    assert "computed otherwise from here on" in done.stderr and "training.devices: 1 -> 2" in done.stderr
    assert_same_losses(one, tmp_path / "run")


def test_from_two_processes_to_one(recipe: Path, one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_in_two(recipe, tmp_path / "run")
    forget_the_second_half(tmp_path / "run")
    train_here(recipe, tmp_path / "run", ONE, resume=True)
    assert "training.devices: 2 -> 1; training.micro_batch: null -> 2" in capsys.readouterr().err
    assert_same_losses(one, tmp_path / "run")


@pytest.mark.slow
def test_torchrun(recipe: Path, one: Path, tmp_path: Path) -> None:
    """Two processes that torchrun has started; the recipe says nothing of them."""
    driver = str(Path(__file__).parent / "processes_driver.py")
    python("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", driver, str(recipe), str(tmp_path / "run"))
    assert torch.load(tmp_path / "run" / "gradients.pt")["world"] == 2
    assert_same_losses(one, tmp_path / "run")


@pytest.mark.slow
def test_srun(recipe: Path, one: Path, tmp_path: Path) -> None:
    """Two processes with the variables that srun gives them."""
    driver = str(Path(__file__).parent / "processes_driver.py")
    script = f"""
import os, subprocess, sys
common = dict(SLURM_NTASKS="2", SLURM_NTASKS_PER_NODE="2", SLURM_NNODES="1", SLURM_NODEID="0", SLURM_JOB_ID="41717", SLURM_JOB_NAME="train",
              SLURM_NODELIST="127.0.0.1")
tasks = [subprocess.Popen([sys.executable, {driver!r}, {str(recipe)!r}, {str(tmp_path / "run")!r}],
                          env={{**os.environ, **common, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
         for i in range(2)]
sys.exit(max(task.wait() for task in tasks))
"""
    python("-c", script)
    assert torch.load(tmp_path / "run" / "gradients.pt")["world"] == 2
    assert_same_losses(one, tmp_path / "run")
