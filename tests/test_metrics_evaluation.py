"""Inversion and the whole evaluation, tiny: a ball whose shape is known, and a small EG3D through the command line."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from analytic import AnalyticColours, AnalyticSphere
from priorzoo.backbones.base import Latents
from priorzoo.cli.main import main
from priorzoo.core.camera import Camera
from priorzoo.core.errors import DataError, PriorzooError
from priorzoo.core.recipe import Recipe
from priorzoo.core.recipe.schema import Evaluation, GeometrySampling, Inversion
from priorzoo.core.streams import fixed_streams
from priorzoo.data.dataset import Dataset
from priorzoo.data.heads import HeadsFiles, write_heads
from priorzoo.metrics import inversion
from priorzoo.metrics.evaluation import EvaluationData, Evaluator, evaluate_model
from priorzoo.metrics.generating import generated_images
from priorzoo.metrics.images import create_extractor
from priorzoo.metrics.inversion import inversion_rules, invert, latent_laws
from priorzoo.metrics.protocol import Result, paired_difference
from priorzoo.metrics.quick import quick_metrics
from priorzoo.metrics.reference import frontal_labels, read_held_out, read_true_heads
from priorzoo.segmenters.heads_shape import HeadsEstimator
from priorzoo.training.run import build_backbone
from safetensors.torch import save_file
from torch import Tensor

PLAN = Evaluation(
    images=6,
    batch=4,
    geometry_samples=3,
    held_out=2,
    sampling=GeometrySampling(coarse=8, fine=0),
    inversion=Inversion(steps=3, learning_rate=0.1, resolution=8),
)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> HeadsFiles:
    return write_heads(tmp_path_factory.mktemp("heads") / "heads.zip", images=6, resolution=16, held_out=3, supersample=1)


def data_of(heads: HeadsFiles) -> EvaluationData:
    return EvaluationData(Dataset(heads.images), heads.held_out, heads.truth)


@cache
def ball() -> AnalyticSphere:
    return AnalyticSphere(neural_resolution=16, image_resolution=16)


def measured(heads: HeadsFiles, backbone: AnalyticSphere, subject: str = "ball", plan: Evaluation = PLAN) -> Result:
    return evaluate_model(backbone, plan, data_of(heads), segmenter=AnalyticColours(), estimator=HeadsEstimator(), subject=subject)


# --------------------------------------------------------------------------------------------------- inversion


def test_inversion_finds_the_latent_behind_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ball's colour comes from its latent: the image gives it back, for each image of the batch."""
    backbone, streams = AnalyticSphere(neural_resolution=32, image_resolution=32), fixed_streams(3, 2)
    # Its hard edge tells an image's gradient nothing of the radius, so the radius is held.
    monkeypatch.setattr(backbone.generator, "radii", lambda w: backbone.generator.radius.expand(len(w)))
    camera = Camera.looking_at_origin(torch.tensor([0.0, 0.4]), torch.zeros(2))
    true = backbone.prepare(backbone.draw(2, streams), None)
    with torch.no_grad():
        image = backbone.render(true, camera, frozenset({"image_raw"}), streams=streams).image_raw
    found = invert(backbone, image, camera, steps=80, learning_rate=0.2, resolution=32, penalty=0.0)
    tints, wanted = (backbone.generator.tints(latents["w"]).detach() for latents in (found, true))
    assert float(wanted.abs().max()) > 0.03  # it began at 0
    assert torch.allclose(tints, wanted, atol=0.005)


def test_inversion_is_deterministic_and_each_image_is_alone() -> None:
    camera = Camera.looking_at_origin(torch.tensor([0.0, 0.4]), torch.zeros(2))
    image = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both, again = (invert(ball(), image, camera, steps=4, resolution=16) for _ in range(2))
    assert torch.equal(both["w"], again["w"])
    alone = invert(ball(), image[:1], camera[:1], steps=4, resolution=16)
    assert torch.allclose(both["w"][:1], alone["w"], atol=1e-6)
    second = invert(ball(), image[1:], camera[1:], steps=4, resolution=16, first=1)
    assert torch.allclose(both["w"][1:], second["w"], atol=1e-6)


def test_inversion_leaves_the_model_as_it_was() -> None:
    before = {k: v.clone() for k, v in ball().state_dict().items()}
    camera = Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    invert(ball(), torch.zeros(1, 3, 16, 16), camera, steps=2, resolution=8)
    assert all(torch.equal(before[k], v) for k, v in ball().state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in ball().parameters())


def test_latent_laws_whiten_what_the_backbone_draws() -> None:
    """A drawn latent has coordinates of about deviation 1; rows that are one w are moved as one."""
    law = latent_laws(ball(), seed=0)["w"]
    drawn = ball().prepare(ball().draw(500, fixed_streams(7, 500)), None)["w"].detach()
    coordinates = (drawn - law.start) @ torch.linalg.pinv(law.directions)
    assert torch.allclose(coordinates.std(0), torch.ones(3), atol=0.15)

    class Layered(AnalyticSphere):
        def prepare(self, latents: Latents, condition: Tensor | None, **options: object) -> Latents:
            w = super().prepare(latents, condition, truncation=float(str(options.get("truncation", 1.0))))["w"]
            return Latents({"ws": w[:, None].expand(-1, 4, -1)})

    layered = latent_laws(Layered(), seed=0)["ws"]
    assert layered.shared
    assert layered.latent(torch.zeros(2, 3)).shape == (2, 4, 3)


# --------------------------------------------------------------------------------------------------- evaluation


def test_evaluation_measures_every_column_and_stores_its_protocol(heads: HeadsFiles) -> None:
    parts: list[str] = []
    result = evaluate_model(
        ball(), PLAN, data_of(heads), segmenter=AnalyticColours(), estimator=HeadsEstimator(), subject="ball",
        progress=lambda part, done, total: parts.append(f"{part} {done}/{total}"),
    )  # fmt: skip
    groups = {column: len(result.terms[column]) for column in result.columns()}
    assert groups["fd_heads"] == 6
    assert groups["truth_depth"] == groups["truth_image"] == 2
    assert groups["sr_skin"] == groups["estimated_normal_skin"] == groups["reprojection"] == 3
    assert result.features is not None
    assert result.features.shape == (6, 192)
    protocol = result.protocol
    assert protocol["images"]["count"] == 6
    assert protocol["images"]["samples_per_ray"] == 12
    assert protocol["images"]["real"] == 6
    assert protocol["shapes"]["resolution"] == 16
    assert protocol["images"]["precision"] == "32-true"
    assert protocol["inversion"].items() >= inversion_rules().items()
    assert all(protocol["shapes"][part] is not None for part in ("segmenter", "estimator"))
    assert {"images 6/6", "inversion 2/2", "shapes 3/3"} <= set(parts)
    assert result.true_value("truth_iou") is not None
    assert result.true_value("reprojection") is not None
    assert set(result.seconds) == {"real images", "true heads", "images", "inversion", "shapes"}


def test_the_first_inverted_heads_are_kept_for_pictures(heads: HeadsFiles, tmp_path: Path) -> None:
    measured(heads, ball()).save(tmp_path / "evaluation.json")
    kept = Result.load(tmp_path / "evaluation.json").inverted
    assert {name: array.shape for name, array in kept.items()} == {
        "image": (2, 3, 16, 16), "depth": (2, 1, 16, 16), "opacity": (2, 1, 16, 16), "true_image": (2, 3, 16, 16),
        "true_depth": (2, 1, 16, 16), "labels": (2, 16, 16), "camera": (2, 25),
    }  # fmt: skip


def test_evaluation_is_reproducible_and_pairs_latents(heads: HeadsFiles) -> None:
    first, second = measured(heads, ball()), measured(heads, ball())
    for column in first.columns():
        assert np.array_equal(first.terms[column], second.terms[column], equal_nan=True), column
    larger = AnalyticSphere(radius=0.27, neural_resolution=16, image_resolution=16)
    difference = paired_difference(measured(heads, larger), first, "truth_iou")
    assert difference.count == 2
    assert difference.value != 0


def test_changes_that_matter_change_the_protocol(heads: HeadsFiles) -> None:
    base = measured(heads, ball())
    other = measured(heads, ball(), plan=PLAN.model_copy(update={"seed": 1}))
    with pytest.raises(PriorzooError, match="protocol field `seed`"):
        paired_difference(base, other, "fd_heads")
    sparse = AnalyticSphere(neural_resolution=16, image_resolution=16, samples=6)
    with pytest.raises(PriorzooError, match="samples_per_ray` is 12 in ball and 6 in sparse"):
        paired_difference(base, measured(heads, sparse, "sparse"), "fd_heads")


@pytest.mark.parametrize(
    ("name", "value", "field"),
    [("PENALTY", 1.0, "penalty"), ("SCALES", (1, 2), "scales"), ("DRAWS", 16, "draws"), ("BETAS", (0.5, 0.9), "betas"),
     ("LAST_RATE", 1.0, "last_rate")],
)  # fmt: skip
def test_what_the_protocol_says_of_the_inversion_is_what_acts(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object, field: str
) -> None:
    image, camera = torch.full((1, 3, 16, 16), 0.5), Camera.looking_at_origin(torch.zeros(1), torch.zeros(1))
    before, rules = invert(ball(), image, camera, steps=4, resolution=16)["w"], inversion_rules()
    monkeypatch.setattr(inversion, name, value)
    assert not torch.equal(invert(ball(), image, camera, steps=4, resolution=16)["w"], before)
    assert [key for key, now in inversion_rules().items() if rules[key] != now] == [field]


def test_real_images_of_another_size_are_refused(heads: HeadsFiles) -> None:
    with pytest.raises(DataError, match="makes images of 32 x 32 pixels, the data set's have 16 x 16"):
        measured(heads, AnalyticSphere(neural_resolution=16, image_resolution=32))


def test_one_evaluator_serves_several_models(heads: HeadsFiles) -> None:
    evaluator = Evaluator(PLAN, data_of(heads), segmenter=AnalyticColours(), estimator=HeadsEstimator())
    shared = [evaluator(ball(), subject=name) for name in ("a", "b")]
    assert shared[0].protocol == shared[1].protocol == measured(heads, ball()).protocol


def test_without_truth_only_images_and_statistics_are_measured(heads: HeadsFiles) -> None:
    data = EvaluationData(Dataset(heads.images))
    result = evaluate_model(ball(), PLAN, data, segmenter=AnalyticColours(), estimator=None)
    assert set(result.columns()) & {"fd_heads", "sr_skin"} == {"fd_heads", "sr_skin"}
    assert not [c for c in result.columns() if c.startswith(("truth_", "estimated_"))]
    assert not result.true
    assert "inversion" not in result.protocol


def test_generated_images_do_not_depend_on_the_batch(heads: HeadsFiles) -> None:
    labels = Dataset(heads.images).labels
    made = [torch.cat(list(generated_images(ball(), labels, images=5, batch=b, seed=0))) for b in (2, 5)]
    assert made[0].dtype == torch.uint8
    assert int((made[0].int() - made[1].int()).abs().max()) <= 1
    assert not torch.equal(made[0][0], made[0][1])


def test_quick_metrics_for_the_training_log(heads: HeadsFiles) -> None:
    out = quick_metrics(
        ball(), Dataset(heads.images).labels, segmenter=AnalyticColours(), estimator=HeadsEstimator(), samples=3, coarse=8, fine=0
    )
    assert {"opacity", "sr_skin", "sr_skin_top", "estimated_normal_skin"} >= set(out)
    assert 0 < out["opacity"] < 1


def test_held_out_heads_have_one_image_an_identity_and_a_second_view(heads: HeadsFiles) -> None:
    assert heads.held_out is not None
    held = read_held_out(heads.held_out, heads.truth, heads=9)
    assert len(held) == 3
    assert len(read_held_out(heads.held_out, heads.truth, heads=2)) == 2
    true = read_true_heads(heads.held_out, heads.truth, heads=9)
    assert float(true.camera.view_angle.max()) <= 0.5
    assert true.other is not None
    turn = (true.other.camera.position - true.camera.position).norm(dim=1)
    assert float(turn.min()) > 0.2


def test_held_out_data_without_truth_is_a_data_error(heads: HeadsFiles) -> None:
    with pytest.raises(DataError, match="no held-out image"):
        read_held_out(heads.images, heads.truth, heads=4)


def test_frontal_labels() -> None:
    labels = Camera.looking_at_origin(torch.tensor([0.0, 1.0, 0.1]), torch.zeros(3)).label()
    assert torch.equal(frontal_labels(labels, 4), labels[[0, 2, 0, 2]])
    assert torch.equal(frontal_labels(labels[1:2], 2), labels[[1, 1]])


SMALL = {
    "backbone": {
        "name": "eg3d", "z_dim": 8, "w_dim": 8, "plane_resolution": 8, "plane_channels": 2, "channel_base": 64, "channel_max": 8,
        "decoder_hidden": 4, "superresolution": "none", "feature_channels": 3, "neural_resolution": 16, "image_resolution": 16,
        "samples_coarse": 4, "samples_fine": 4, "discriminator_channel_base": 64, "discriminator_channel_max": 8,
        "conditioning": "none",
    },
    "data": {"name": "heads", "images": 4, "resolution": 16, "held_out": 2},
    "training": {"images": 8},
    "evaluation": PLAN.model_dump(),
}  # fmt: skip


def test_the_command_measures_weights_with_a_card(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`priorzoo evaluate FILE` generates the recipe's heads, measures, and writes result and features."""
    monkeypatch.chdir(tmp_path)
    recipe = Recipe.from_plain(SMALL)
    state = {f"generator.{k}": v.contiguous() for k, v in build_backbone(recipe).generator.state_dict().items()}
    weights = tmp_path / "tiny" / "model.safetensors"
    weights.parent.mkdir()
    save_file(state, weights)
    (weights.parent / "card.json").write_text(json.dumps({"backbone": "eg3d", "recipe": recipe.to_plain()}))
    assert main(["evaluate", str(weights), "evaluation.images=5", "evaluation.held_out=0"]) == 0
    printed = capsys.readouterr().out
    assert "FD(heads)" in printed
    result = Result.load(tmp_path / "runs" / "tiny" / "results" / "evaluation.json")
    assert len(result.terms["fd_heads"]) == result.protocol["images"]["count"] == 5
    assert "truth_depth" not in result.terms
    assert main(["evaluate", str(weights), "backbone.z_dim=4"]) == 2
    assert "would change the model, not how it is measured" in capsys.readouterr().err
    assert main(["evaluate", str(weights), "evaluation.imges=5"]) == 2
    assert "images" in capsys.readouterr().err
    assert main(["evaluate", str(weights), "--device", "gpu"]) == 2
    assert "--device must be one of auto, cpu, cuda, got 'gpu'" in capsys.readouterr().err


def test_inception_needs_its_weight_file() -> None:
    with pytest.raises(PriorzooError, match=r"needs evaluation\.inception_weights.*nothing is downloaded"):
        create_extractor("inception", None)
