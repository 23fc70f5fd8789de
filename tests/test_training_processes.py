"""Two processes are one: the same recipe on two processes gives what one process gives that accumulates the same two micro-batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from priorzoo.core.errors import RunError
from priorzoo.core.recipe.schema import Training
from priorzoo.data.heads import write_heads
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.processes import World, world_of
from processes_driver import ONE, PHASES, RECIPE, assert_same_losses, losses, python, train_here, train_in_two


def apart(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest difference of two sets of tensors, relative to each tensor's largest element."""
    assert a.keys() == b.keys()
    return max(float((a[k] - b[k]).abs().max()) / max(float(a[k].abs().max()), 1e-12) for k in a)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    write_heads(folder / "heads.zip", images=6, resolution=16, held_out=0, supersample=1)
    (folder / "two.yaml").write_text(RECIPE)
    return folder / "two.yaml"


def test_gradients_of_every_phase_agree(recipe: Path, tmp_path: Path) -> None:
    double = ("training.precision=64-true", "training.images=4")
    train_here(recipe, tmp_path / "one", [*ONE, *double])
    train_in_two(recipe, tmp_path / "two", *double)
    one, two = (torch.load(tmp_path / name / "gradients.pt") for name in ("one", "two"))
    assert (one.pop("world"), two.pop("world")) == (1, 2)
    assert list(one) == list(two) == PHASES
    for phase in PHASES:
        assert all(t.dtype == torch.float64 for t in one[phase].values())
        assert any(bool(t.any()) for t in one[phase].values()), phase
        assert apart(one[phase], two[phase]) <= 1e-6, phase
    assert any("superresolution" in name for name in one["Gmain"])
    assert not any("superresolution" in name for name in one["prior/depth_variance"])
    models = [read_checkpoint(checkpoint_folders(tmp_path / name)[-1]) for name in ("one", "two")]
    for kind in ("model", "optimisers"):
        assert apart(getattr(models[0], kind), getattr(models[1], kind)) <= 1e-6, kind
    assert bool(models[0].model["generator.backbone.mapping.w_avg"].any())


def test_twenty_steps_agree(recipe: Path, tmp_path: Path) -> None:
    train_here(recipe, tmp_path / "one", ONE)
    train_in_two(recipe, tmp_path / "two")
    assert_same_losses(tmp_path / "one", tmp_path / "two")
    times = [
        sum(name in record for record in losses(tmp_path / "two"))
        for name in ("prior/density_tv/raw", "prior/depth_variance/raw", "D/r1", "prior/skin/raw")
    ]
    assert times == [10, 5, 5, 7]
    assert len({record["augmentation/p"] for record in losses(tmp_path / "two")}) > 3  # the controller moves


def test_an_error_stops_both_processes(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    done = python("-m", "priorzoo", "train", str(recipe), "training.devices=2", "segmenter=null", "priors=null", "data.path=/nowhere.zip",
                  "--out", str(tmp_path / "taken"), code=2)  # fmt: skip
    assert "nowhere.zip" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "taken" / "recipe.yaml").exists()


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"}
SRUN = {"SLURM_NTASKS": "16", "SLURM_NTASKS_PER_NODE": "8", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "train"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, World(1, 1, "priorzoo")),
        (TORCHRUN, World(8, 2, "torchrun")),
        (SRUN, World(8, 2, "srun")),
        ({**SRUN, **TORCHRUN, "WORLD_SIZE": "8"}, World(8, 1, "torchrun")),
        ({**SRUN, "SLURM_JOB_NAME": "interactive"}, World(1, 1, "priorzoo")),
    ],
)
def test_who_has_started_processes_is_believed(environment: dict[str, str], expected: World) -> None:
    assert world_of(Training(images=1), environment) == expected


def test_contradictions_about_processes_are_refused() -> None:
    with pytest.raises(RunError, match=r"torchrun has started 2 x 8 processes .*the recipe asks for 1 x 4"):
        world_of(Training(images=1, devices=4), TORCHRUN)
    with pytest.raises(RunError, match=r"16 tasks.*--ntasks-per-node"):
        world_of(Training(images=1), {"SLURM_NTASKS": "16"})
