"""BallGAN trains: the separation priors act on what the generator learns, a stopped run goes on, the split of a batch does not matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract.small_backbones import EG3D as SMALL
from contract.small_backbones import SPHERE, build
from priorzoo.backbones.eg3d import BallGAN
from priorzoo.core.camera import Camera
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.core.schedule import schedule_from_plain
from priorzoo.core.streams import fixed_streams
from priorzoo.data.heads import write_heads
from priorzoo.training.checkpoints import checkpoint_folders, read_checkpoint
from priorzoo.training.run import build_backbone, load_run
from priorzoo.training.sources import open_sources
from priorzoo.training.stand_ins import random_start
from priorzoo.training.trainer import Trainer, train

PRIORS = {
    "separation": {"name": "background_separation", "weight": 0.5},
    "distortion": {"name": "distortion", "weight": 0.5},
    "published": {"name": "distortion", "form": "as_published", "weight": 0.001},
    "entropy": {"name": "ray_entropy", "weight": 0.01, "phase": "own", "interval": 2},
}


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "heads.zip"
    write_heads(path, images=8, resolution=16, held_out=0, supersample=1)
    return path


def recipe(heads: Path, priors: dict[str, Any] | None = None, **training: Any) -> Recipe:
    options = {**SMALL, "superresolution": "none", "feature_channels": 3, "noise": "random", "discriminator_group": 1}
    return Recipe.from_plain({
        "seed": 1,
        "backbone": {"name": "ballgan", **options},
        "background": SPHERE,
        "data": {"name": "eg3d", "path": str(heads)},
        "priors": PRIORS if priors is None else priors,
        "objective": {"pose_swap": 0.5, "r1": {"gamma": 1.0, "interval": 2}},
        "training": {"images": 16, "batch": 4, "checkpoint": {"every": 100}, "samples": None, "threads": 1, **training},
    })  # fmt: skip


def started(given: Recipe, folder: Path) -> Trainer:
    trainer = Trainer(given, folder, open_sources(given, folder))
    trainer.start()
    return trainer


def test_it_trains_and_a_stopped_run_goes_on(heads: Path, tmp_path: Path) -> None:
    train(recipe(heads), tmp_path / "whole", progress=False)
    train(recipe(heads, images=8), tmp_path / "halves", progress=False)
    train(recipe(heads), tmp_path / "halves", resume=True, allow_changes=True, progress=False)
    whole, halves = (read_checkpoint(checkpoint_folders(tmp_path / name)[-1]).model for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    assert [k for k in whole if not torch.equal(whole[k], halves[k])] == []
    before = build_backbone(recipe(heads)).generator.state_dict()
    # Every tensor that learns has moved: both networks of the sphere, and density, whose weights began at zero.
    still = [k for k, t in before.items() if torch.equal(t, whole[f"generator.{k}"]) and not k.endswith(("resample_filter", "noise_const"))]
    assert still == []
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert 0.0 < lines[0]["prior/separation/raw"] < 0.5 and lines[0]["prior/distortion/raw"] > 0.0
    assert load_run(tmp_path / "whole").backbone().background is not None


def test_priors_act_without_any_density_regularisation(heads: Path, tmp_path: Path) -> None:
    """In the published code they act only where that is on."""
    trainer = started(recipe(heads, {"separation": PRIORS["separation"]}), tmp_path)
    plain = started(recipe(heads, {}), tmp_path)
    for one in (trainer, plain):
        one.train_step()
    name = "decoder.sigma_out.bias"
    assert not torch.equal(trainer.backbone.generator.state_dict()[name], plain.backbone.generator.state_dict()[name])


@pytest.mark.parametrize("size", [1, 2])
def test_micro_batches_do_not_matter(heads: Path, tmp_path: Path, size: int) -> None:
    """Gradients of every phase in float64, one slice against several."""
    gradients = []
    for micro in (None, size):
        trainer = started(recipe(heads, micro_batch=micro), tmp_path)
        trainer.backbone.double()
        trainer.objective.real_labels = trainer.objective.real_labels.double()
        slices = trainer.micro_batches()
        for part in slices:
            part.real, part.labels = part.real.double(), part.labels.double()
        found = {}
        for phase in trainer.phases:
            trainer.optimisers[phase.part].step = lambda: None  # type: ignore[assignment,method-assign]
            trainer.runner.run(phase, slices)
            found[phase.name] = {n: p.grad.clone() for n, p in trainer.runner.named(phase.part) if p.grad is not None}
        gradients.append(found)
    assert len(gradients[0]) == 4  # the generator's and its own phase of the entropy, the discriminator's and R1
    for phase in gradients[0]:
        assert gradients[0][phase].keys() == gradients[1][phase].keys() and gradients[0][phase]
        for name, expected in gradients[0][phase].items():
            assert torch.allclose(gradients[1][phase][name], expected, rtol=1e-6, atol=1e-12), (phase, name)


def test_both_latents_of_an_image_are_its_own(heads: Path, tmp_path: Path) -> None:
    """No z comes twice in a step, whatever stands behind it; in the published code half of them do."""
    trainer = started(recipe(heads), tmp_path)
    drawn = trainer.backbone.draw(64, fixed_streams(0, 64))
    for name in ("z", "z_background"):
        assert len(drawn[name].unique(dim=0)) == 64


def test_samples_that_are_asked_for_come_in_drawing_order(heads: Path) -> None:
    """The published distortion sums differences in that order; what is rendered does not depend on it."""
    backbone = build("ballgan", {**SMALL, "superresolution": "none", "feature_channels": 3, "background": SPHERE})
    streams, camera = fixed_streams(0, 2), Camera.looking_at_origin(torch.zeros(2), torch.zeros(2))
    with torch.no_grad():
        latents = backbone.prepare(backbone.draw(2, streams), camera.label())
        asked, plain = (backbone.render(latents, camera, frozenset(n), streams=streams) for n in ({"samples", "weights"}, {"weights"}))
    assert asked.samples.coarse == SMALL["samples_coarse"] and asked.samples.distances.shape[-1] == 12
    coarse, fine = asked.samples.distances.split([6, 6], dim=-1)
    assert bool((coarse.diff(dim=-1) > 0).all())
    assert bool((fine.diff(dim=-1) < 0).any())
    assert torch.allclose(fine.sort(dim=-1).values, plain.samples.distances[..., 6:].sort(dim=-1).values, atol=1e-6)
    assert torch.allclose(asked.weights, plain.weights, atol=1e-6)


def test_the_published_ramp_of_weights_is_a_schedule() -> None:
    """exp(images / 5000) / 20, for 15,000 images; it ends 0.4 % above the weight, ours at the weight."""
    stored = np.load(Path(__file__).parent / "golden" / "ballgan" / "losses.npz")
    ramp = schedule_from_plain({"kind": "exponential", "start": 1 / 20, "rate": 1 / 5000, "cap": 20})
    ours = [ramp.at(images=int(n), steps=0) for n in stored["loss.sched_nimg"]]
    assert ours[:3] == pytest.approx(stored["loss.sched_val"][:3].tolist(), rel=1e-5)
    assert ours[3] == 1.0 and stored["loss.sched_val"][3] == pytest.approx(1.004, abs=1e-3)


def test_a_new_model_is_a_thin_fog_and_the_recipe_waits() -> None:
    """T = exp(-softplus(-1) (far - near)) = 0.72 on every ray: separation would push it to an empty foreground."""
    given = load_recipe("ffhq/ballgan", check_files=False)
    near, far = given.backbone.options["near"], given.backbone.options["far"]
    options = {**SMALL, "superresolution": "none", "feature_channels": 3, "near": near, "far": far, "samples_coarse": 48}
    new = BallGAN(**options, background=SPHERE)
    streams, camera = fixed_streams(0, 2), Camera.looking_at_origin(torch.tensor([0.0, 0.3]), torch.zeros(2))
    latents = new.prepare(new.draw(2, streams), camera.label())
    seen = new.render(latents, camera, frozenset({"background_transmittance"}), streams=streams).background_transmittance
    assert float(seen.detach().min()) > 0.715 and float(seen.detach().max()) < 0.73
    for name in ("separation", "distortion"):
        weight = given.priors[name].weight
        assert [weight.at(images=i, steps=0) for i in (0, 200_000, 600_000, 2_000_000)] == [0.0, 0.0, 0.25, 0.5]
    assert given.objective.blur.at(images=200_000, steps=0) == 0.0


@pytest.mark.parametrize("name", ["ffhq/ballgan", "afhq_cats/ballgan"])
def test_the_ablation_has_its_four_rows(name: str) -> None:
    table = load_recipe(name, check_files=False)
    priors = {variant: set(table.variant(variant).priors) for variant in table.variants}
    both = {"separation", "distortion"}
    assert priors == {"none": set(), "separation": {"separation"}, "distortion": {"distortion"}, "both": both}
    assert table.background.options["radius"] == 3.0 and table.backbone.options["decoder"] == "split"


@pytest.mark.parametrize("decoder", ["split", "joint"])
def test_a_stand_in_start_shows_surfaces_before_the_sphere(heads: Path, tmp_path: Path, decoder: str) -> None:
    """What a dry run starts from: random weights that are solid, whichever layer the density comes from."""
    plain = recipe(heads).to_plain()
    start = random_start(Recipe.from_plain({**plain, "backbone": {**plain["backbone"], "decoder": decoder}}), tmp_path / "start")
    backbone = load_run(start).backbone()
    streams, camera = fixed_streams(0, 2), Camera.looking_at_origin(torch.zeros(2), torch.zeros(2))
    scene = backbone.render(backbone.prepare(backbone.draw(2, streams), None), camera, frozenset({"opacity"}), streams=streams)
    assert float(scene.opacity.min()) > 0.9
