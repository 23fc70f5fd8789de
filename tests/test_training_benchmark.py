"""The time of a step by part: every part is there, nothing is lost, and the training stays what it is."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import pytest
import torch
from priorzoo.core.recipe import Recipe
from priorzoo.data.heads import write_heads
from priorzoo.training.benchmark import step_cost
from priorzoo.training.peak_memory import forget_peak, peak_memory
from priorzoo.training.sources import open_sources
from priorzoo.training.timing import StepTimer, Watch
from priorzoo.training.trainer import Trainer

SMALL = {
    "name": "eg3d", "z_dim": 4, "w_dim": 8, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 8,
    "decoder_hidden": 4, "feature_channels": 4, "neural_resolution": 8, "image_resolution": 16, "samples_coarse": 4, "samples_fine": 4,
    "superresolution": "2x", "superresolution_channels": [4, 4], "superresolution_input": 8,
    "discriminator_channel_base": 64, "discriminator_channel_max": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    write_heads(path, images=8, resolution=16, held_out=0, supersample=1)
    return path


def recipe(heads: Path) -> Recipe:
    return Recipe.from_plain({
        "backbone": SMALL,
        "segmenter": {"name": "unet"},
        "data": {"name": "eg3d", "path": str(heads)},
        "priors": {
            "skin": {"name": "ssr", "region": "skin", "erosion": 1, "weight": 1.0},
            "tv": {"name": "density_tv", "phase": "own", "interval": 2, "weight": 0.1},
        },
        "objective": {"r1": {"gamma": 1.0, "interval": 4}},
        "training": {"images": 16, "batch": 2, "checkpoint": {"every": 100}, "samples": None, "threads": 1},
    })  # fmt: skip


def test_every_part_of_a_step_is_timed_and_nothing_else(heads: Path, tmp_path: Path) -> None:
    cost = step_cost(recipe(heads), data_folder=tmp_path, repeats=1)
    assert cost.steps == 4 and cost.batch == 2
    assert set(cost.parts) == {
        "data", "generator: mapping", "generator: planes", "generator: rendering", "generator: super-resolution", "discriminator",
        "discriminator: R1", "segmenter", "prior skin", "prior tv", "optimiser", "average", "rest",
    }  # fmt: skip
    assert all(seconds > 0 for seconds in cost.parts.values())
    assert sum(cost.share(part) for part in ("data", "generator", "discriminator", "segmenter", "prior", "optimiser", "average", "rest")) \
        == pytest.approx(1.0)  # fmt: skip
    # Hooks cost something, but the parts are those of the same step.
    assert 0.5 < cost.timed_step / cost.step < 5
    assert cost.images_per_second == pytest.approx(2 / cost.step)
    assert json.loads(json.dumps(cost.to_plain()))["shares"]["data"] == pytest.approx(cost.share("data"))


def test_peak_memory_is_that_of_the_steps(heads: Path, tmp_path: Path) -> None:
    cpu, page = torch.device("cpu"), b"x" * 2**20
    forget_peak(cpu)
    with mmap.mmap(-1, 400 * 2**20) as pages:
        for _ in range(400):
            pages.write(page)
    before = peak_memory(cpu)
    assert step_cost(recipe(heads), data_folder=tmp_path).peak_memory < before - 100 * 2**20


@pytest.mark.filterwarnings("ignore:Full backward hook")  # the inner modules' inputs need no gradient
def test_the_backward_belongs_to_the_part_that_made_the_graph(heads: Path, tmp_path: Path) -> None:
    """A wait inside the backward of one part appears in that part alone: D's once for G's phase and twice for its own."""
    given = recipe(heads)
    trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
    trainer.start()
    trainer.train_step()
    ticks = [0.0]
    waits = {"generator: planes": 1.0, "generator: super-resolution": 100.0, "discriminator": 10_000.0}

    def slow(module: torch.nn.Module, name: str) -> None:
        def wait(*_: object) -> None:
            ticks[0] += waits[name]

        module.register_full_backward_hook(wait)

    assert trainer.backbone.discriminator is not None
    # A module's hook lies around its forward, so the hook of an inner module is what lies inside.
    slow(next(trainer.backbone.generator.superresolution.children()), "generator: super-resolution")
    slow(next(trainer.backbone.generator.backbone.synthesis.children()), "generator: planes")
    slow(trainer.backbone.discriminator, "discriminator")
    timer = StepTimer(trainer)
    timer.watch = Watch(lambda: ticks[0])
    with timer:
        trainer.train_step()
    assert {k: v for k, v in timer.watch.seconds.items() if v} == {
        "generator: planes": 1.0, "generator: super-resolution": 100.0, "discriminator": 30_000.0
    }  # fmt: skip


def test_timing_leaves_the_training_as_it_is(heads: Path, tmp_path: Path) -> None:
    given = recipe(heads)
    ends = []
    for timed in (False, True):
        trainer = Trainer(given, tmp_path, open_sources(given, tmp_path))
        trainer.start()
        if timed:
            with StepTimer(trainer):
                trainer.train_step()
                trainer.train_step()
            assert "train_step" not in vars(trainer)
        else:
            trainer.train_step()
            trainer.train_step()
        trainer.train_step()
        ends.append(trainer.backbone.state_dict())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
