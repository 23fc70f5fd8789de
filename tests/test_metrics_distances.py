"""Frechet and kernel distances: closed forms, torch-fidelity's numbers, and the intervals against a bootstrap."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from priorzoo.core.errors import CheckpointError, MissingPackageError, PriorzooError
from priorzoo.metrics import fidelity
from priorzoo.metrics.distances import Distance, frechet_distance, kernel_distance
from priorzoo.metrics.statistics import mean_interval, paired_interval
from torch import Tensor

Distances = Callable[[Tensor, Tensor], Distance]


def features(count: int, width: int, seed: int) -> Tensor:
    """Correlated features that are not centred."""
    drawn = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(99)) / width**0.5
    return torch.randn(count, width, generator=drawn) @ mixing + 0.1 * seed


def test_frechet_distance_of_gaussians_along_axes() -> None:
    """For independent axes it is sum (mu - m)^2 + (s - t)^2; here with sample moments, which are made exact."""
    x = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    y = x * torch.tensor([2.0, 1.0, 0.5]) + torch.tensor([1.0, 0.0, -2.0])
    assert frechet_distance(x, y).value == pytest.approx(1 + 4 + 1 + 0.25, abs=1e-9)


def test_frechet_distance_is_torch_fidelitys() -> None:
    x, y = features(300, 40, 1), features(200, 40, 2)
    expected = fidelity.frechet_inception_distance(x, y)
    assert frechet_distance(x, y).value == pytest.approx(expected, abs=1e-6)
    assert expected > 0.1


def test_frechet_distance_with_fewer_images_than_features() -> None:
    x, y = features(20, 40, 1), features(30, 40, 2)
    distance = frechet_distance(x, y)
    assert distance.value == pytest.approx(fidelity.frechet_inception_distance(x, y), abs=1e-5)
    assert bool(torch.isfinite(distance.terms).all())


def test_kernel_distance_is_torch_fidelitys() -> None:
    x, y = features(150, 20, 1), features(150, 20, 2)
    expected = fidelity.kernel_inception_distance(x, y, subsets=1, size=150)
    assert kernel_distance(x, y).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_interval_agrees_with_a_bootstrap(distance: Distances) -> None:
    """The terms' standard error is that of resampled images; torch.randint repeats images, as a bootstrap does."""
    x, y = features(400, 4, 1), features(500, 4, 2)
    measured = distance(x, y)
    assert float(measured.terms.mean()) == pytest.approx(measured.value, rel=1e-9)
    drawn = torch.Generator().manual_seed(0)
    again = [distance(x[torch.randint(400, (400,), generator=drawn)], y).value for _ in range(150)]
    assert float(measured.terms.std()) / 20 == pytest.approx(float(np.std(again)), rel=0.25)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_pairing_narrows_the_interval(distance: Distances) -> None:
    x, y = features(400, 4, 1), features(500, 4, 2)
    close = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5)) + 0.02
    a, b = distance(close, y), distance(x, y)
    paired = paired_interval(a.terms.numpy(), b.terms.numpy())
    alone = mean_interval(a.terms.numpy())
    assert paired.value == pytest.approx(a.value - b.value, rel=1e-6)
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def test_bad_features_are_refused() -> None:
    good = features(10, 4, 0)
    with pytest.raises(PriorzooError, match="2 of 10 generated images"):
        frechet_distance(torch.where(torch.arange(10)[:, None] < 2, torch.nan, good), good)
    with pytest.raises(PriorzooError, match="widths differ, 3 generated and 4 real"):
        kernel_distance(good[:, :3], good)
    with pytest.raises(PriorzooError, match="at least 2 images"):
        frechet_distance(good[:1], good)


def test_inception_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth: no such file.*nothing is downloaded"):
        fidelity.inception(tmp_path / "nowhere.pth")
    other = tmp_path / "other.pth"
    other.write_bytes(b"a pickle that must not be opened")
    with pytest.raises(CheckpointError, match=r"SHA-256 begins .*, expected 6726825d"):
        fidelity.inception(other)


def test_without_torch_fidelity_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch_fidelity", "torch_fidelity.metric_fid", "torch_fidelity.metric_kid", "torch_fidelity.utils"):
        monkeypatch.setitem(sys.modules, name, None)  # None makes the import fail
    with pytest.raises(MissingPackageError, match=r"pip install --no-deps torch-fidelity"):
        fidelity.frechet_inception_distance(features(5, 2, 0), features(5, 2, 1))


def test_measuring_heads_does_not_import_torch_fidelity() -> None:
    code = "import sys, priorzoo.metrics.evaluation, priorzoo.metrics.fidelity; sys.exit('torch_fidelity' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_our_extractor_runs_inside_torch_fidelity() -> None:
    """FD(heads) is what torch-fidelity's own calculate_metrics gives for the same standardised features."""
    from priorzoo.metrics.images import HeadsFeatures

    drawn = torch.Generator().manual_seed(0)
    real, fake = (torch.randint(0, 256, (24, 3, 64, 64), generator=drawn, dtype=torch.uint8) for _ in range(2))
    fake = (fake // 2).contiguous()
    extractor = HeadsFeatures()
    reference = extractor.reference(real)
    deviation = reference.std(0).clamp_min(1e-3)
    name = "heads-unet-test"
    fidelity.register_extractor(name, lambda image: (extractor(image) - reference.mean(0)) / deviation)
    metrics = _through_calculate_metrics(fake, real, name)
    ours, _ = extractor.distances(extractor.reference(fake), reference)
    assert ours.value == pytest.approx(metrics["frechet_inception_distance"], rel=1e-4)


class _Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def _through_calculate_metrics(fake: Tensor, real: Tensor, name: str) -> dict[str, float]:
    metrics: dict[str, float] = fidelity.torch_fidelity().calculate_metrics(
        input1=_Images(fake), input2=_Images(real), fid=True, cuda=False, cache=False, save_cpu_ram=True, verbose=False,
        feature_extractor=name, batch_size=8,
    )  # fmt: skip
    return metrics
