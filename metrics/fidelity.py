"""The one place that imports torch-fidelity: FID, KID, IS, Inception by a weight file, and our extractors under its
interface.

torch-fidelity pulls torchvision in, which many environments lack or have in a build that does not fit; so it is
imported when it is used and never before. Nothing is ever downloaded: without a weight file there is no Inception.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..core.errors import CheckpointError, MissingPackageError
from ..core.files import file_digest

INCEPTION_SHA256 = "6726825d"
"""First digits of the hash of torch-fidelity's published Inception weights, as in the name of the published file."""
INSTALL = "pip install --no-deps torch-fidelity==0.4.0 and a torchvision that matches torch (`make setup` does both)"


def torch_fidelity() -> Any:
    """Return the module torch_fidelity; MissingPackageError with the install line where it cannot be imported."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchvision warns of image codecs that nobody uses here
            import torch_fidelity.metric_fid
            import torch_fidelity.metric_isc
            import torch_fidelity.metric_kid
            import torch_fidelity.utils
    except (ImportError, RuntimeError, AttributeError) as error:  # a torchvision of another build raises RuntimeError
        raise MissingPackageError(
            f"FID, KID and IS need torch-fidelity, which does not import here ({error}); install it: {INSTALL}"
        ) from error
    return torch_fidelity


def inception(weights: str | Path, *, device: torch.device | str = "cpu") -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return what reads Inception: uint8 [B,3,H,W] to pool features [B,2048] and logits without bias [B,1008].

    The file is read by torch-fidelity without protection against hostile content, so its hash is checked before it is
    opened.

    Raises CheckpointError when the file is missing or another one, MissingPackageError without torch-fidelity.
    """
    path = Path(weights)
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no such file; give torch-fidelity's Inception weights (weights-inception-2015-12-05-"
            f"{INCEPTION_SHA256}.pth) by path: nothing is downloaded"
        )
    got = file_digest(path)
    if not got.startswith(INCEPTION_SHA256):
        raise CheckpointError(f"{path}: not torch-fidelity's Inception weights: SHA-256 begins {got[:8]}, expected {INCEPTION_SHA256}")
    utils = torch_fidelity().utils
    device = torch.device(device)
    network = utils.create_feature_extractor(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        cuda=device.type == "cuda",
        verbose=False,
        feature_extractor_weights_path=str(path),
    )

    def read(image: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            features, logits = network(image.to(device))
        return features.float(), logits.float()

    return read


def frechet_inception_distance(features: Tensor, reference: Tensor) -> float:
    """FID of two feature sets [n,d], [m,d], by torch-fidelity's own functions in float64."""
    metric = torch_fidelity().metric_fid
    statistics = [metric.fid_features_to_statistics(f.double().cpu()) for f in (features, reference)]
    return float(metric.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"])


def kernel_inception_distance(features: Tensor, reference: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 2020) -> float:
    """KID of two feature sets by torch-fidelity: mean over ``subsets`` of at most ``size`` images each."""
    size = min(size, len(features), len(reference))
    out = torch_fidelity().metric_kid.kid_features_to_metric(
        features.double().cpu(),
        reference.double().cpu(),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    return float(out["kernel_inception_distance_mean"])


def inception_score(logits: Tensor, *, splits: int = 10, seed: int = 2020) -> float:
    """Inception Score of logits [n,classes] by torch-fidelity: mean over ``splits`` random splits."""
    out = torch_fidelity().metric_isc.isc_features_to_metric(logits.double().cpu(), splits, True, seed)
    return float(out["inception_score_mean"])


def register_extractor(name: str, features: Callable[[Tensor], Tensor]) -> None:
    """Make an extractor (uint8 [B,3,H,W] to [B,d]) known to torch-fidelity's ``calculate_metrics`` under ``name``."""
    module = torch_fidelity()
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Extractor(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return ("features",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "features"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            return (features(image),)

    module.register_feature_extractor(name, Extractor)
