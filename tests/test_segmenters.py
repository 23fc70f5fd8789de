"""The `unet` and `truth` segmenters and the `heads` estimator: contracts, shipped weights re-measured, refused files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from priorzoo.core.classes import CLASS_NAMES, MIRROR_PAIRS
from priorzoo.core.errors import CheckpointError, DataError, PriorzooError
from priorzoo.core.registry import ESTIMATORS, SEGMENTERS
from priorzoo.data.heads import write_heads
from priorzoo.data.truth import ImageTruth
from priorzoo.rendering.standardising import standardised
from priorzoo.segmenters.heads_shape import OUTPUTS, HeadsEstimator
from priorzoo.segmenters.network import SHIPPED, SmallUNet, folded, load_network, save_network
from priorzoo.segmenters.truth import TruthSegmenter
from priorzoo.segmenters.unet import UNetSegmenter
from priorzoo.training.augmentation import coarsened, degraded
from priorzoo.training.head_pool import HeadPool, render_held_out
from priorzoo.training.supervised import confusion_matrix, iou_per_class, shape_errors
from safetensors.torch import load_file, save_file

UNSEEN = 77  # a seed of which no head was trained on
SMALL = ("left_eye", "right_eye", "left_brow", "right_brow")
LARGE = ("background", "skin", "hair", "cloth")
OTHER = ("nose", "mouth", "upper_lip", "lower_lip", "neck")


@pytest.fixture(scope="module")
def unet() -> UNetSegmenter:
    return SEGMENTERS.create("unet")


@pytest.fixture(scope="module")
def estimator() -> HeadsEstimator:
    return ESTIMATORS.create("heads")


@pytest.fixture(scope="module")
def heads() -> HeadPool:
    """Twelve heads from two cameras each."""
    return render_held_out(12, 64, UNSEEN)


@pytest.fixture(scope="module")
def truth_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("heads") / "heads.zip"
    return write_heads(out, images=2, resolution=16, held_out=1, supersample=1).truth


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (128, 128), (48, 80), (65, 71)])
def test_probabilities_have_the_image_s_size_and_sum_to_one(unet: UNetSegmenter, size: tuple[int, int]) -> None:
    found = unet.segment(torch.rand(2, 3, *size) * 2 - 1)
    assert found.probabilities.shape == (2, 19, *size)
    assert found.probabilities.dtype == torch.float32
    assert float((found.probabilities.sum(1) - 1).abs().max()) < 1e-5
    assert found.names == CLASS_NAMES == unet.names == UNetSegmenter.class_names()


def test_no_gradient_reaches_the_image_or_the_weights(unet: UNetSegmenter, estimator: HeadsEstimator) -> None:
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert not unet.segment(image).probabilities.requires_grad
    assert not any(buffer.requires_grad for buffer in estimator.estimate(image))
    assert not any(p.requires_grad for part in (unet, estimator) for p in part.parameters())


def test_training_mode_changes_nothing(unet: UNetSegmenter, heads: HeadPool) -> None:
    image = heads[:2].image()
    before = unet.segment(image).probabilities
    assert torch.equal(unet.train().segment(image).probabilities, before)
    unet.eval()


def test_a_sample_s_result_does_not_depend_on_its_batch(unet: UNetSegmenter, heads: HeadPool) -> None:
    image = heads[:4].image()
    alone = torch.cat([unet.segment(one[None]).probabilities for one in image])
    assert torch.allclose(unet.segment(image).probabilities, alone, atol=1e-5)


def test_needs_follow_the_option() -> None:
    assert UNetSegmenter.needs() == {"image"}
    assert UNetSegmenter.needs(reads="image_raw") == {"image_raw"}
    assert UNetSegmenter.reads_generated_images()
    assert {"unet", "truth"} <= set(SEGMENTERS.names())
    assert "heads" in ESTIMATORS.names()


def test_iou_of_the_shipped_weights_on_unseen_heads(unet: UNetSegmenter, heads: HeadPool) -> None:
    iou = iou_per_class(confusion_matrix(unet.network, heads))
    assert min(iou[name] for name in SMALL) >= 0.7
    assert min(iou[name] for name in LARGE) >= 0.85
    assert min(iou[name] for name in OTHER) >= 0.6
    card = json.loads((SHIPPED / "unet_heads" / "card.json").read_text())
    claimed = card["held_out"]["plain"]["iou"]
    assert min(claimed[name] for name in SMALL) >= 0.6
    for name in (*SMALL, *LARGE):
        assert abs(claimed[name] - iou[name]) < 0.1, name


def test_iou_on_blurred_noisy_and_coarse_images(unet: UNetSegmenter, heads: HeadPool) -> None:
    iou = iou_per_class(confusion_matrix(unet.network, heads, degraded(heads.image())))
    assert min(iou[name] for name in SMALL) >= 0.6
    assert min(iou[name] for name in LARGE) >= 0.8
    iou = iou_per_class(confusion_matrix(unet.network, heads, coarsened(heads.image(), 32)))
    assert min(iou[name] for name in ("skin", "hair", "left_eye", "right_eye")) >= 0.6


def test_finer_images_are_parsed_alike(unet: UNetSegmenter, heads: HeadPool) -> None:
    fine = render_held_out(4, 128, UNSEEN)
    labels = unet.segment(fine.image()).labels()
    for name in ("skin", "hair", "left_eye", "right_eye"):
        found, true = labels == CLASS_NAMES.index(name), fine.labels == CLASS_NAMES.index(name)
        assert float((found & true).sum() / (found | true).sum()) >= 0.7, name


def test_a_mirrored_image_gets_swapped_sides(unet: UNetSegmenter, heads: HeadPool) -> None:
    labels = unet.segment(heads.image()).labels()
    other = unet.segment(heads.image().flip(-1)).labels().flip(-1)
    for left, right in MIRROR_PAIRS:
        overlap = ((labels == left) & (other == right)).sum() / ((labels == left) | (other == right)).sum()
        mixed = ((labels == left) & (other == left)).sum() / (labels == left).sum()
        assert float(overlap) > 0.6 and float(mixed) < 0.05, CLASS_NAMES[left]


def test_an_image_of_another_shape_is_refused(unet: UNetSegmenter) -> None:
    with pytest.raises(PriorzooError, match=r"\[B,3,H,W\], got \[1, 1, 8, 8\]"):
        unet.segment(torch.zeros(1, 1, 8, 8))


def test_estimated_depth_and_normals(estimator: HeadsEstimator, heads: HeadPool) -> None:
    depth, normals = estimator.estimate(heads.image())
    inside = estimator.foreground(heads.image())
    assert depth.shape == (24, 1, 64, 64) and normals.shape == (24, 3, 64, 64)
    assert torch.allclose(normals.norm(dim=1), torch.ones(24, 64, 64), atol=1e-4)
    for one, where in zip(depth, inside, strict=True):
        assert abs(float(one[where].mean())) < 1e-4
        assert abs(float(one[where].std(correction=0)) - 1) < 1e-3
        assert float(one[~where].abs().max()) == 0
    assert float((normals[:, 2:] < 0)[inside].float().mean()) > 0.97  # towards the camera
    true = heads.labels[:, None] != 0
    both = torch.stack([depth[true & inside], heads.depth.float()[true & inside]])
    assert float(torch.corrcoef(both)[0, 1]) > 0.9  # larger is farther


def test_errors_of_the_shipped_estimator_on_unseen_heads(estimator: HeadsEstimator, heads: HeadPool) -> None:
    errors = shape_errors(estimator.network, heads)
    card = json.loads((SHIPPED / "shape_heads" / "card.json").read_text())
    claimed = card["held_out"]["plain"]
    assert errors["foreground_iou"] > 0.97
    for region, most in (("skin", 13.0), ("foreground", 16.0), ("eyes", 22.0)):
        assert errors[region]["normal_degrees"] < most, region
        assert abs(errors[region]["normal_degrees"] - claimed[region]["normal_degrees"]) < 2.5, region
        assert abs(errors[region]["depth"] - claimed[region]["depth"]) < 0.08, region


def test_an_image_without_foreground_is_finite() -> None:
    depth = standardised(torch.full((1, 1, 4, 4), torch.inf), torch.zeros(1, 1, 4, 4, dtype=torch.bool))
    assert torch.equal(depth, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("name", ["unet_heads", "shape_heads"])
def test_shipped_files_are_small_and_their_cards_complete(name: str) -> None:
    weights = SHIPPED / name / "model.safetensors"
    card = json.loads((SHIPPED / name / "card.json").read_text())
    assert weights.stat().st_size < 1_000_000
    assert card["bytes"] == weights.stat().st_size
    assert card["parameters"] == sum(t.numel() for t in load_file(weights).values())
    for key in ("recipe", "seed", "command", "commit", "hardware", "training_seconds", "held_out", "torch", "priorzoo"):
        assert card[key] is not None, key
    assert card["command"].startswith("priorzoo train-segmenter")
    assert {"plain", "varied", "plain, degraded"} <= set(card["held_out"])


def test_folding_keeps_the_function(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    network = SmallUNet(5, widths=(4, 8), normalise=True).train()
    for _ in range(3):
        network(torch.rand(4, 3, 8, 8, generator=generator))
    image = torch.rand(2, 3, 8, 8, generator=generator)
    expected = network.eval()(image)
    assert torch.allclose(folded(network)(image), expected, atol=1e-5)
    save_network(tmp_path / "m.safetensors", folded(network), resolution=8, outputs=OUTPUTS)
    stored, resolution = load_network(tmp_path / "m.safetensors", OUTPUTS)
    assert resolution == 8
    assert torch.allclose(stored(image), expected, atol=1e-2)  # float16 on disk


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cannot be read"):
        UNetSegmenter(weights=path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(CheckpointError, match=r"m\.safetensors: cannot be read as safetensors"):
        UNetSegmenter(weights=path)
    with pytest.raises(CheckpointError, match=r"makes 5 maps .*expected 19"):
        UNetSegmenter(weights=SHIPPED / "shape_heads" / "model.safetensors")
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="its header lacks 'widths'"):
        UNetSegmenter(weights=path)
    tensors = load_file(SHIPPED / "unet_heads" / "model.safetensors")
    header = {"widths": "16,32,64,96", "resolution": "64", "outputs": ",".join(CLASS_NAMES)}
    save_file({k: v for k, v in tensors.items() if k != "out.bias"}, path, header)
    with pytest.raises(CheckpointError, match=r"missing: out\.bias"):
        UNetSegmenter(weights=path)
    save_file({**tensors, "extra": torch.zeros(1)}, path, header)
    with pytest.raises(CheckpointError, match="unexpected: extra"):
        UNetSegmenter(weights=path)
    save_file({**tensors, "out.bias": torch.zeros(3)}, path, header)
    with pytest.raises(CheckpointError, match=r"out\.bias: file \[3\], network \[19\]"):
        UNetSegmenter(weights=path)


def test_truth_hands_out_stored_labels(truth_file: Path) -> None:
    segmenter = SEGMENTERS.create("truth", data=truth_file)
    names = ImageTruth(truth_file).names()
    found = segmenter.segment_named(names[1:3])
    assert torch.equal(found.labels().to(torch.uint8), ImageTruth(truth_file)[names[1:3]].labels)
    assert found.names == CLASS_NAMES == TruthSegmenter.class_names()
    assert torch.equal(found.probabilities.sum(1), torch.ones(2, 16, 16))


def test_truth_refuses_what_it_cannot_know(truth_file: Path, tmp_path: Path) -> None:
    segmenter = TruthSegmenter(data=truth_file)
    assert not TruthSegmenter.reads_generated_images()
    with pytest.raises(PriorzooError, match="cannot read an image"):
        segmenter.segment(torch.zeros(1, 3, 16, 16))
    with pytest.raises(DataError, match=r"did you mean '00000/img00000001\.png'"):
        segmenter.segment_named(["00000/img0000001.png"])
    with pytest.raises(DataError, match="no such file"):
        TruthSegmenter(data=tmp_path / "none.truth.zip")
