"""Precision, recall and Inception Score: answers known beforehand, torch-fidelity's numbers, and what becomes a column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from priorzoo.core.errors import PriorzooError
from priorzoo.metrics import fidelity, images, manifolds
from priorzoo.metrics.columns import COLUMNS
from priorzoo.metrics.distances import kernel_distance
from priorzoo.metrics.images import HeadsFeatures, InceptionFeatures, to_bytes
from priorzoo.metrics.inception_score import inception_score, splits_of
from priorzoo.metrics.manifolds import inside_manifold, neighbour_radii, precision_and_recall
from priorzoo.metrics.statistics import mean_interval
from torch import Tensor


def drawn(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def shares(features: Tensor, reference: Tensor) -> tuple[float, float]:
    precision, recall = precision_and_recall(features, reference)
    return float(precision.float().mean()), float(recall.float().mean())


def test_identical_sets_have_all_and_disjoint_sets_none() -> None:
    x = drawn(200, 5, 0)
    assert shares(x, x.clone()) == (1.0, 1.0)
    assert shares(x + 1000, x) == (0.0, 0.0)


def test_one_corner_of_the_real_images_is_precise_and_recalls_little() -> None:
    """Generated images are a quarter of the real ones: all lie on their manifold, which they do not cover."""
    real = drawn(400, 2, 0)
    corner = real[(real[:, 0] > 0) & (real[:, 1] > 0)]
    precision, recall = shares(corner, real)
    assert precision == 1.0
    assert len(corner) / 400 <= recall < 0.6
    assert shares(real, corner) == (recall, precision)  # the other way round they change places


def test_balls_by_hand() -> None:
    """On a line: radii to the nearest other; a point on a ball's border is inside."""
    x = torch.tensor([[0.0], [1.0], [4.0]])
    assert neighbour_radii(x, 1).tolist() == [1.0, 1.0, 3.0]
    assert inside_manifold(torch.tensor([[-1.0], [-1.5], [7.0], [7.5]]), x, neighbour_radii(x, 1)).tolist() == [True, False, True, False]


def test_precision_and_recall_are_torch_fidelitys(monkeypatch: pytest.MonkeyPatch) -> None:
    fidelity.torch_fidelity()
    import torch_fidelity.metric_prc as published

    x, y = drawn(300, 8, 1) * 0.8 + 0.2, drawn(260, 8, 2)
    expected = published.prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=64, save_cpu_ram=True, verbose=False)
    assert 0.1 < expected["precision"] < 1.0 and 0.1 < expected["recall"] < 1.0
    assert shares(x, y) == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)
    monkeypatch.setattr(manifolds, "CHUNK", 7 * 260)  # a few rows at a time give the same
    assert shares(x, y) == pytest.approx((expected["precision"], expected["recall"]), abs=1e-6)


def test_too_few_images_or_other_widths_are_refused() -> None:
    with pytest.raises(PriorzooError, match="3 nearest neighbours need 4 images, got 3"):
        precision_and_recall(drawn(3, 2, 0), drawn(9, 2, 0))
    with pytest.raises(PriorzooError, match="widths differ, 2 generated and 3 real"):
        precision_and_recall(drawn(9, 2, 0), drawn(9, 3, 0))


@pytest.mark.parametrize("classes", [2, 7])
def test_inception_score_of_sure_and_even_classes_is_their_number(classes: int) -> None:
    assert inception_score(100 * torch.eye(classes).repeat(30, 1)).value == pytest.approx(classes, rel=1e-9)
    assert inception_score(torch.zeros(40, classes)).value == pytest.approx(1.0, rel=1e-12)  # unsure of everything


def test_inception_score_is_torch_fidelitys_with_ten_splits_and_terms_that_average_to_it() -> None:
    fidelity.torch_fidelity()
    import torch_fidelity.metric_isc as published

    logits = 2 * drawn(1500, 6, 3)
    score = inception_score(logits)
    assert splits_of(1500) == 10
    assert score.value == published.isc_features_to_metric(logits, splits=10, shuffle=True, rng_seed=2020)["inception_score_mean"]
    assert float(score.terms.mean()) == pytest.approx(score.value, rel=1e-12)


def test_the_interval_of_inception_score_agrees_with_a_bootstrap() -> None:
    logits = 2 * drawn(900, 4, 5)
    interval = mean_interval(inception_score(logits).terms.numpy())
    generator = torch.Generator().manual_seed(0)
    again = [inception_score(logits[torch.randint(900, (900,), generator=generator)]).value for _ in range(150)]
    assert (interval.high - interval.low) / 2 / 1.96 == pytest.approx(float(np.std(again)), rel=0.2)


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(PriorzooError, match="logits must be finite"):
        inception_score(torch.full((4, 3), torch.nan))


def test_kernel_distance_in_pieces_is_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from priorzoo.metrics import distances

    x, y = drawn(50, 4, 1), drawn(40, 4, 2)
    whole = kernel_distance(x, y)
    monkeypatch.setattr(distances, "CHUNK", 3 * 40)
    pieces = kernel_distance(x, y)
    assert pieces.value == pytest.approx(whole.value, rel=1e-12)
    assert torch.allclose(pieces.terms, whole.terms, rtol=1e-10)
    given = kernel_distance(x, y, value=7.0)  # a value known from elsewhere moves the terms alone
    assert given.value == 7.0 and torch.allclose(given.terms - 7.0, whole.terms - whole.value, rtol=1e-8)


def test_heads_features_give_precision_with_an_interval_and_recall_without() -> None:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 256, (n, 3, 64, 64), generator=generator, dtype=torch.uint8) for n in (12, 9))
    extractor = HeadsFeatures()
    measures = extractor.measures(extractor.generated(fake), extractor.reference(real))
    assert {key: len(terms) for key, terms in measures.items()} == {"fd_heads": 9, "kd_heads": 9, "precision": 9, "recall": 1}
    assert set(measures) <= set(COLUMNS)
    assert set(extractor.measures(extractor.generated(fake[:3]), extractor.reference(real))) == {"fd_heads", "kd_heads"}
    recall = mean_interval(measures["recall"].numpy())
    assert recall.count == 1 and np.isnan(recall.low)


def test_inception_reads_logits_of_generated_images_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A stand-in for the network: the columns, and that real images' features have no logits in them."""

    def stand_in(weights: object, *, device: object = "cpu") -> object:
        return lambda image: (image.float().mean((2, 3)) / 255, image.float().amax((2, 3)) / 50)

    monkeypatch.setattr(images, "inception", stand_in)
    (tmp_path / "inception.pth").write_bytes(b"weights")
    extractor = InceptionFeatures(tmp_path / "inception.pth")
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8) for n in (30, 20))
    read = extractor.generated(fake)
    assert extractor(fake).shape == (20, 3) and read.shape == (20, 6)
    measures = extractor.measures(read, extractor.reference(real))
    assert {key: len(terms) for key, terms in measures.items()} == {"fid": 20, "kid": 20, "precision": 20, "recall": 1, "is": 20}
    assert float(measures["kid"].mean()) == pytest.approx(100 * fidelity.kernel_inception_distance(read[:, :3], extractor(real)), abs=1e-9)
    assert float(measures["is"].mean()) == pytest.approx(fidelity.inception_score(read[:, 3:], splits=1))
    assert float(measures["fid"].mean()) == pytest.approx(fidelity.frechet_inception_distance(read[:, :3], extractor(real)), abs=1e-9)
    assert extractor.rules(50_000) == {"neighbours": 3, "inception_score_splits": 10}


def test_images_become_bytes_as_published() -> None:
    """EG3D's FID: 127.5 x + 128, cut off to whole numbers after clamping, not rounded."""
    x = torch.tensor([-1.2, -1.0, -0.9999, 0.0, 0.0039, 0.0040, 0.9921, 0.9999, 1.0, 1.3])
    assert to_bytes(x).tolist() == [0, 0, 0, 128, 128, 128, 254, 255, 255, 255]
    grid = torch.linspace(-1.1, 1.1, 10_001)
    assert torch.equal(to_bytes(grid), (grid * 127.5 + 128).clamp(0, 255).floor().to(torch.uint8))
