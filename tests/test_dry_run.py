"""`priorzoo train --dry-run`: the whole of a training, for two steps; at full size from files in the public formats (slow)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from priorzoo.cli.main import main
from priorzoo.core.errors import CheckpointError, RecipeError
from priorzoo.core.recipe import Recipe, load_recipe
from priorzoo.core.recipe.loading import load_changed
from priorzoo.data.heads import HeadsPlan, plan_camera
from priorzoo.segmenters.bisenet import BiSeNetSegmenter
from priorzoo.training import dry_run as dry_run_module
from priorzoo.training.checkpoints import checkpoint_folders
from priorzoo.training.dry_run import SMALL_BATCH, dry_run
from priorzoo.training.run import load_run
from priorzoo.training.stand_ins import FRONTAL_SEED, HEADS, face_parser, random_start, with_stand_ins

SMALL = """\
backbone:
  {name: eg3d, z_dim: 4, w_dim: 8, plane_resolution: 8, plane_channels: 2, channel_base: 64, channel_max: 8, decoder_hidden: 4,
   feature_channels: 4, neural_resolution: 16, image_resolution: 32, samples_coarse: 8, samples_fine: 8, superresolution: 2x,
   superresolution_channels: [4, 4], superresolution_input: 16, discriminator_channel_base: 64, discriminator_channel_max: 8}
init: start.pkl
data: {name: eg3d, path: faces.zip}
segmenter: {name: unet}
priors:
  smooth: {name: sr, weight: 2.0}
  density_tv: {name: density_tv, phase: own, interval: 4, weight: 0.25}
training: {images: 1000, batch: 32}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def quiet(line: str) -> None:
    """Says nothing."""


def test_two_steps_of_two_images_from_stand_ins_are_written_and_resumed(recipe: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(recipe), "--dry-run", "--out", "kept"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "stand in for start.pkl, which is not there" in shown and "stand in for faces.zip" in shown
    assert "2 steps of 2 images by micro-batches of 1" in shown and "resumed with every number as it was" in shown
    told = [line for line in shown.split("dry run: ") if line.startswith("step ")]
    assert [line.split(" ", 4)[4].split()[0] for line in told] == ["Gmain", "prior/density_tv", "Dmain", "R1", "Gmain", "Dmain"]
    assert told[3].strip() == "step 1 of 2: R1" and told[4].strip() == "step 2 of 2: Gmain"
    assert "`priorzoo plan` measures how long the training takes" in shown, "first steps say nothing about the others"
    told = json.loads(Path("kept/dry_run.json").read_text())
    assert len(told["seconds"]) == 2 and all(0 < s < 60 for s in told["seconds"])
    assert told["seconds"][1] < sum(told["clock"]["seconds"].values()), "the lazy phases run in the first step alone"
    assert told["clock"]["intervals"] == {"data and averages": 1, "Gmain": 1, "prior/density_tv": 4, "Dmain": 1, "R1": 16}
    assert 1e8 < told["peak_memory"] < 4e9 and told["checkpoint"] > 1e4 and len(told["stand_ins"]) == 2
    terms = told["terms"]
    assert set(terms) == {"G/adversarial", "prior/smooth", "prior/density_tv"}
    assert all(term["value"] > 0 and term["gradient"] > 0 for term in terms.values())
    assert terms["prior/smooth"]["weight"] == 2.0 and terms["prior/density_tv"]["weight"] == 1.0, "0.25, every 4 steps"
    assert 0 < terms["prior/smooth"]["pixels"] <= 2 * 16 * 16 and terms["G/adversarial"]["pixels"] is None
    (checkpoint,) = checkpoint_folders(Path("kept/run"))
    assert checkpoint.name == "000000004" and load_run("kept/run").images == 4
    assert main(["train", str(recipe), "--dry-run", "--out", "kept"]) == 2, "a folder that holds something is left alone"


def test_nothing_is_left_without_out_and_the_callers_batch_wins(recipe: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["train", str(recipe), "training.batch=1", "training.devices=8", "training.nodes=2", "init=null", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "2 steps of 1 images by micro-batches of 1" in shown
    assert "dry run: on one process, whatever training.devices and training.nodes say" in shown
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.yaml", "temporary"] and not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize("flag", [["--devices", "8"], ["--nodes", "2"], ["--resume"], ["--allow-changes"], ["--data", "heads"]])
def test_flags_that_do_not_apply_are_refused_by_name(flag: list[str], recipe: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", str(recipe), "--dry-run", *flag]) == 2
    assert f"error: train --dry-run: {flag[0]} does not apply" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["small.yaml"]


def test_a_terms_value_and_gradient_are_those_of_the_whole_batch(recipe: Path, tmp_path: Path) -> None:
    """By micro-batches of 1 and all at once, as everywhere; and a gradient grows with its weight."""

    def terms(*overrides: str) -> dict[str, Any]:
        return dry_run(small(recipe, *overrides), tmp_path / str(len(list(tmp_path.iterdir()))), steps=1).terms

    one, both, double = terms(), terms("training.micro_batch=2"), terms("priors.smooth.weight=4")
    for name in ("prior/smooth", "prior/density_tv"):
        assert one[name].value == pytest.approx(both[name].value, rel=1e-4)
        assert one[name].gradient == pytest.approx(both[name].gradient, rel=1e-3)
        assert one[name].pixels == both[name].pixels
    assert double["prior/smooth"].gradient == pytest.approx(2 * one["prior/smooth"].gradient, rel=1e-4)
    assert double["prior/smooth"].value == pytest.approx(one["prior/smooth"].value, rel=1e-5)


def small(recipe: Path, *overrides: str) -> Recipe:
    return load_recipe(recipe, (*SMALL_BATCH, *overrides), check_files=False)


ADAPTIVE = ("objective.augmentation.probability=0.5", "objective.augmentation.interval=2", "objective.augmentation.images=64")


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_resumed_training_goes_on_as_the_one_that_was_not_stopped(precision: str, recipe: Path, tmp_path: Path) -> None:
    """The weights, both moments, ADA's probability, the loss scales and the losses themselves after one more step, bit for bit."""
    dry_run(small(recipe, *ADAPTIVE, f"training.precision={precision}"), tmp_path / "run", steps=3, go_on=True)


@pytest.mark.parametrize(
    ("owner", "named"),
    [
        ("objective.EG3DObjective", r"objective\.augmentation\.probability"),
        ("precision.LossScale", r"scales\.Gmain\.(factor|passes)"),
    ],
)
def test_a_lost_state_is_found_out(owner: str, named: str, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"priorzoo.training.{owner}.restore", lambda *_: None)
    with pytest.raises(CheckpointError, match=rf"000000004: {named} is not the same after resuming"):
        dry_run(small(recipe, *ADAPTIVE, "training.precision=16-mixed"), tmp_path / "run")


def test_what_no_state_shows_is_found_out_by_one_more_step(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = dry_run_module.Trainer.start

    def start(trainer: Any) -> None:
        real(trainer)
        if trainer.step:
            trainer.optimisers["discriminator"].param_groups[0]["lr"] *= 2

    monkeypatch.setattr(dry_run_module.Trainer, "start", start)
    dry_run(small(recipe), tmp_path / "unseen", steps=1)
    with pytest.raises(CheckpointError, match=r"model\.discriminator\..* is not the same one step after resuming"):
        dry_run(small(recipe), tmp_path / "seen", steps=1, go_on=True)


def test_a_checkpoint_that_loses_a_number_is_found_out(recipe: Path, tmp_path: Path, monkeypatch) -> None:
    real = dry_run_module.Trainer.start

    def start(trainer: Any) -> None:
        real(trainer)
        if trainer.step:
            with torch.no_grad():
                trainer.average.generator.backbone.mapping.w_avg[0] += 1.0

    monkeypatch.setattr(dry_run_module.Trainer, "start", start)
    with pytest.raises(CheckpointError, match=r"average\.generator\.backbone\.mapping\.w_avg is not the same after resuming"):
        dry_run(small(recipe), tmp_path / "run", steps=1)


def test_stand_ins_are_for_what_is_missing_alone(recipe: Path, tmp_path: Path) -> None:
    told: list[str] = []
    loaded = load_recipe(recipe, check_files=False)
    ready = with_stand_ins(loaded, tmp_path / "made", told.append)
    assert len(told) == 2 and ready.missing == ()
    assert with_stand_ins(ready, tmp_path / "again", told.append) == ready and len(told) == 2 and not list((tmp_path / "again").iterdir())
    only_init = load_changed(ready, ["init=nowhere.pkl"])
    again = with_stand_ins(only_init, tmp_path / "again", told.append)
    assert again.data == ready.data and again.init != ready.init and told[2].startswith("init: ")
    heads = load_recipe("heads/eg3d_ssr")
    fewer = with_stand_ins(heads, tmp_path / "heads", told.append)
    assert fewer.data is not None and fewer.data.name == "heads" and fewer.data.images == HEADS
    assert told[3] == f"data: {HEADS} heads instead of the recipe's 500"


def test_what_nothing_stands_in_for_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(SMALL.replace("{name: unet}", "{name: unet, weights: nowhere.safetensors}"))
    with pytest.raises(RecipeError, match=r"other\.yaml:7: segmenter\.weights: .*nowhere\.safetensors"):
        with_stand_ins(load_recipe(path, check_files=False), tmp_path / "made", quiet)


def test_stand_in_heads_look_at_the_camera() -> None:
    plan = HeadsPlan(HEADS, 16, FRONTAL_SEED, wide_yaw=0.0, images_per_identity=1, held_out=0)
    assert float(plan_camera(plan, range(HEADS)).view_angle.rad2deg().max()) < 15


def test_a_stand_in_start_shows_surfaces(recipe: Path, tmp_path: Path) -> None:
    loaded = load_recipe(recipe, ["init=null"], check_files=False)
    from priorzoo.core.camera import Camera
    from priorzoo.core.streams import fixed_streams

    backbone = load_run(random_start(loaded, tmp_path / "start")).backbone()
    streams = fixed_streams(0, 1)
    latents = backbone.prepare(backbone.draw(1, streams), None)
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    opacity = backbone.render(latents, camera, frozenset({"opacity"}), streams=streams)["opacity"]
    assert float(opacity.min()) > 0.9


def test_a_stand_in_parser_finds_skin_and_eyes_in_any_image(tmp_path: Path) -> None:
    segmenter = BiSeNetSegmenter(weights=face_parser(tmp_path / "parser.pth"))
    noise = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = torch.nn.functional.interpolate(noise, size=256, mode="bilinear") * torch.tensor([1.0, 0.1])[:, None, None, None] - 0.3
    labels = segmenter.segment(image).labels((64, 64))
    found = [{segmenter.names[i] for i in one.unique().tolist()} for one in labels]
    assert found == [{"skin", "left_eye"}] * 2
    skin = (labels == segmenter.names.index("skin")).float().mean((1, 2))
    assert float(skin.min()) > 0.5 and float(skin.max()) < 0.95


# ---------------------------------------------------------------------------------------------------------- at full size


@pytest.mark.slow
def test_ssr_at_full_size_from_files_in_the_public_formats(tmp_path: Path) -> None:
    """ffhq/eg3d_ssr from a pickle and a parser of the published formats and sizes: SSR acts on skin and eyes, and 16 GiB suffice."""
    from bisenet_weights import write_bisenet
    from official_pickles import official
    from pickle_writer import Writer
    from priorzoo.training.run import build_backbone
    from priorzoo.training.stand_ins import make_solid

    recipe: Recipe = load_recipe("ffhq/eg3d_ssr", ["init=null"], check_files=False)
    start = build_backbone(recipe)
    assert make_solid(start.generator), "without this, nothing is solid under random weights, and SSR looks at nothing"
    with open(tmp_path / "ffhq512-128.pkl", "wb") as file:
        Writer(file).write(official(start))  # type: ignore[arg-type]
    assert (tmp_path / "ffhq512-128.pkl").stat().st_size > 300e6
    write_bisenet(tmp_path / "79999_iter.pth", (1, 4, 5))  # skin and eyes, in the file's order of outputs
    command = [sys.executable, "-m", "priorzoo", "train", "ffhq/eg3d_ssr", "--dry-run", "--out", "dry"]
    with open(tmp_path / "shown.txt", "wb") as shown:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=shown, stderr=shown, env={**os.environ, "OMP_NUM_THREADS": "2"})
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    text = (tmp_path / "shown.txt").read_text()
    assert process.returncode == 0, text
    assert usage.ru_maxrss * 1024 < 16 * 2**30, "the whole process: data, import, steps, checkpoint, resumed training"
    told = json.loads((tmp_path / "dry" / "dry_run.json").read_text())
    assert [line.split(" ")[0] for line in told["stand_ins"]] == ["data:"], "start and parser are the files"
    trained = {name: count for name, count in told["parameters"].items() if not name.startswith("(")}
    assert sum(count for name, count in trained.items() if name.startswith("generator")) == 30_662_136
    assert trained["discriminator"] == 31_359_744
    for name in ("skin", "eyes"):
        term = told["terms"][f"prior/{name}"]
        assert term["value"] > 0 and term["gradient"] > 0 and term["pixels"] > 100, (name, term)
    assert told["clock"]["batch"] == 2 and len(told["seconds"]) == 2
    assert set(told["clock"]["seconds"]) == {"Gmain", "prior/density_tv", "Dmain", "R1", "data and averages"}
    assert told["checkpoint"] > 8e8 and "resumed with every number as it was" in text
    (checkpoint,) = checkpoint_folders(tmp_path / "dry" / "run")
    assert json.loads((checkpoint / "state.json").read_text())["images"] == 4
    shutil.rmtree(tmp_path / "dry")  # two gigabytes
