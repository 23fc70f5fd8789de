"""Training of segmenter and estimator: pools, augmentation, losses, determinism, the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from priorzoo.cli.main import main
from priorzoo.core.classes import CLASS_IDS, CLASS_NAMES
from priorzoo.core.errors import PriorzooError
from priorzoo.data.heads import HeadsPlan, plan_camera, write_heads
from priorzoo.segmenters.unet import UNetSegmenter
from priorzoo.training.augmentation import augmented, blurred, coarsened, degraded
from priorzoo.training.head_pool import HeadPool, mirrored, moved, read_pool, render_held_out, render_pool
from priorzoo.training.supervised import (
    SupervisedPlan,
    class_weights,
    classes_loss,
    confusion_matrix,
    iou_per_class,
    shape_errors,
    shape_loss,
    train_network,
)
from torch import Tensor


@pytest.fixture(scope="module")
def pool() -> HeadPool:
    return render_pool(16, 32, seed=3)


def _alike(a: HeadPool, b: HeadPool) -> bool:
    return all(torch.equal(getattr(a, key), getattr(b, key)) for key in ("rgb", "labels", "depth", "normals"))


def test_a_pool_is_a_function_of_its_seed(pool: HeadPool) -> None:
    assert len(pool) == 16
    assert _alike(pool[:8], render_pool(8, 32, seed=3))
    assert not torch.equal(pool.rgb[:8], render_pool(8, 32, seed=4).rgb)


def test_a_pool_s_truth_is_standardised_and_in_the_camera_s_frame(pool: HeadPool) -> None:
    for labels, depth, normals in zip(pool.labels, pool.depth.float(), pool.normals.float(), strict=True):
        inside = labels != 0
        assert abs(float(depth[0][inside].mean())) < 1e-2
        assert abs(float(depth[0][inside].std()) - 1) < 1e-2
        assert float((normals[2][inside] < 0.05).float().mean()) > 0.98  # what is seen faces the camera
        assert float(normals[:, ~inside].abs().max()) == 0


def test_some_views_are_zoomed_and_shifted() -> None:
    plan = HeadsPlan(40, held_out=0)
    camera = plan_camera(plan, range(40))
    other = moved(camera, plan, range(40))
    changed = (other.intrinsics != camera.intrinsics).flatten(1).any(1)
    assert 5 < int(changed.sum()) < 30
    assert torch.equal(other.cam2world, camera.cam2world)


def test_held_out_heads_are_the_data_set_s(tmp_path: Path) -> None:
    files = write_heads(tmp_path / "heads.zip", images=2, resolution=16, seed=5, held_out=2)
    stored, rendered = read_pool(str(files.images), "held_out"), render_held_out(2, 16, 5)
    assert torch.equal(stored.rgb, rendered.rgb)
    assert torch.equal(stored.labels, rendered.labels)
    assert float((stored.depth - rendered.depth).abs().max()) < 5e-3
    assert len(read_pool(str(files.images), "train")) == 2


def test_mirroring_swaps_sides_and_is_its_own_inverse(pool: HeadPool) -> None:
    other = mirrored(pool)
    left, right = CLASS_IDS["left_eye"], CLASS_IDS["right_eye"]
    assert torch.equal((other.labels == right).flip(-1), pool.labels == left)
    assert int((pool.labels == left).sum()) > 0
    assert torch.equal((other.labels == CLASS_IDS["nose"]).flip(-1), pool.labels == CLASS_IDS["nose"])
    assert torch.equal(other.normals[:, 0].flip(-1), -pool.normals[:, 0])
    assert torch.equal(other.normals[:, 1:].flip(-1), pool.normals[:, 1:])
    assert _alike(mirrored(other), pool)


def test_augmentation_is_seeded_and_stays_in_range(pool: HeadPool) -> None:
    image = pool.image()
    made = [augmented(image, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])
    assert float(made[0].abs().max()) <= 1
    assert bool((made[0] != image).flatten(1).any(1).all())
    assert torch.equal(degraded(image), degraded(image))


def test_blur_keeps_constants_and_spreads_a_point() -> None:
    constant = torch.full((1, 3, 16, 16), 0.3)
    assert torch.allclose(blurred(constant, torch.tensor([1.2])), constant, atol=1e-6)
    point = torch.zeros(1, 3, 17, 17)
    point[..., 8, 8] = 1.0
    spread = blurred(point, torch.tensor([1.0]))
    at = torch.arange(17.0) - 8
    assert abs(float(spread[0, 0].sum()) - 1) < 1e-4
    assert abs(float((spread[0, 0].sum(0) * at.square()).sum()) - 1.0) < 0.02  # the variance
    assert torch.allclose(coarsened(constant, 4), constant, atol=1e-6)


def _perfect_logits(labels: Tensor) -> Tensor:
    return 40.0 * torch.nn.functional.one_hot(labels.long(), len(CLASS_NAMES)).permute(0, 3, 1, 2).float() - 20.0


def test_losses_vanish_on_the_truth_alone(pool: HeadPool) -> None:
    labels, weights = pool.labels.long(), class_weights(pool.labels)
    assert float(classes_loss(_perfect_logits(labels), labels, weights)) < 1e-4
    assert float(classes_loss(_perfect_logits(labels.flip(1)), labels, weights)) > 1
    depth, normals = pool.depth.float(), pool.normals.float()
    foreground = torch.where(pool.labels[:, None] != 0, 20.0, -20.0)
    assert float(shape_loss(torch.cat([foreground, depth, 3 * normals], 1), depth, normals)) < 1e-3
    assert float(shape_loss(torch.cat([foreground, depth, -normals], 1), depth, normals)) > 1.9


def test_rare_classes_weigh_more(pool: HeadPool) -> None:
    weights = class_weights(pool.labels)
    assert weights[CLASS_IDS["left_eye"]] > weights[CLASS_IDS["skin"]] >= weights[CLASS_IDS["background"]]


class _Stored(torch.nn.Module):
    """Answers with stored maps, batch after batch."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps, self.at = maps, 0

    def forward(self, image: Tensor) -> Tensor:
        self.at += len(image)
        return self.maps[self.at - len(image) : self.at]


def test_measures_against_closed_forms(pool: HeadPool) -> None:
    perfect = confusion_matrix(_Stored(_perfect_logits(pool.labels)), pool)
    assert set(iou_per_class(perfect).values()) == {1.0}
    nothing = iou_per_class(confusion_matrix(_Stored(_perfect_logits(0 * pool.labels)), pool))
    share = float((pool.labels == 0).float().mean())
    assert nothing["skin"] == 0 and abs(nothing["background"] - share) < 1e-4
    foreground = torch.where(pool.labels[:, None] != 0, 1.0, -1.0)
    depth, normals = pool.depth.float(), pool.normals.float()
    exact = shape_errors(_Stored(torch.cat([foreground, 5 + 2 * depth, normals], 1)), pool)
    assert exact["foreground_iou"] == 1
    assert exact["skin"]["normal_degrees"] < 0.2 and exact["skin"]["depth"] < 2e-3
    turned = torch.stack([normals[:, 2], normals[:, 1], -normals[:, 0]], 1)
    off = shape_errors(_Stored(torch.cat([foreground, -depth, turned], 1)), pool)
    assert off["skin"]["normal_degrees"] > 30 and off["skin"]["depth"] > 0.5


@pytest.mark.parametrize("target", ["classes", "shape"])
def test_training_twice_gives_the_same_weights(pool: HeadPool, target: str) -> None:
    seen: list[float] = []
    plan = SupervisedPlan(target, steps=3, batch=4)
    before = torch.get_rng_state()
    first = train_network(pool, plan, progress=lambda done, steps, loss: seen.append(loss)).state_dict()
    assert len(seen) == 3
    assert torch.equal(torch.get_rng_state(), before)  # no draw from the global generator
    second = train_network(pool, plan).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train_network(pool, SupervisedPlan(target, steps=3, batch=4, seed=1)).state_dict()
    assert not torch.equal(first["out.weight"], other["out.weight"])


def test_training_learns(pool: HeadPool) -> None:
    seen: list[float] = []
    plan = SupervisedPlan("classes", steps=60, batch=8)
    network = train_network(pool, plan, progress=lambda done, steps, loss: seen.append(loss))
    assert seen[-1] < 0.8 * seen[0]  # a slow average
    assert iou_per_class(confusion_matrix(network, pool))["background"] > 0.6


def test_a_loss_that_is_not_finite_stops_the_training(pool: HeadPool) -> None:
    broken = HeadPool(pool.rgb, pool.labels, torch.full_like(pool.depth, torch.nan), pool.normals)
    with pytest.raises(PriorzooError, match="the loss is nan at step 0"):
        train_network(broken, SupervisedPlan("shape", steps=3, batch=4))


def test_the_command_writes_weights_card_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "train-segmenter", "--target", "both", "--images", "8", "--resolution", "16", "--steps", "2", "--batch", "2",
        "--held-out", "1", "--out", str(tmp_path),
    ]  # fmt: skip
    threads = torch.get_num_threads()
    assert main(arguments) == 0
    assert torch.get_num_threads() == threads
    assert "held-out IoU, plain" in capsys.readouterr().out
    card = json.loads((tmp_path / "unet_heads" / "card.json").read_text())
    assert card["recipe"]["images"] == 8 and card["recipe"]["steps"] == 2 and card["seed"] == 0
    assert card["command"] and card["hardware"]["threads"] == 1
    assert UNetSegmenter(weights=tmp_path / "unet_heads" / "model.safetensors").resolution == 16
    names = {path.name for path in (tmp_path / "unet_heads").iterdir()}
    assert {"model.safetensors", "card.json", "confusion_plain.png", "examples_plain.png"} <= names
    assert {path.name for path in (tmp_path / "shape_heads").iterdir()} >= {"model.safetensors", "examples_plain.png"}
    assert main(arguments) == 2
    assert "holds weights already; --force" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "shap"], "--target: got 'shap', did you mean 'shape'?; allowed: classes, shape, both"),
        (["--images", "1"], "--images: must be at least 2, got 1"),
        (["--resolution", "48"], "--resolution: must be a power of two from 16, got 48"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--batch", "0"], "batch must be at least 1, got 0"),
        (["--held-out", "0"], "--held-out: must be at least 1, got 0"),
        (["--threads", "0"], "--threads: must be at least 1, got 0"),
        (["--seed", "-1"], "seed must be 0 or more, got -1"),
        (["--data", "nowhere.zip"], "nowhere.zip: no such file or folder"),
    ],
)
def test_broken_calls_are_refused(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-segmenter", "--out", str(tmp_path / "out"), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
