"""Image quality: how far generated images are from real ones, by named feature extractors.

Ours for heads is the encoder of the `unet` segmenter, and its columns are called FD(heads) and KD(heads): plain FID
and KID are Inception's alone. Every model is rendered with the same sampling, latents, cameras and jitter; the
sampling moves these numbers more than a prior does.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.errors import PriorzooError
from ..core.files import file_digest
from ..segmenters.unet import UNetSegmenter
from .distances import Distance, frechet_distance, kernel_distance
from .fidelity import frechet_inception_distance, inception, kernel_inception_distance
from .inception_score import inception_score, splits_of
from .manifolds import NEIGHBOURS, precision_and_recall

LEAST_DEVIATION = 1e-3  # a feature that hardly varies on real images is not blown up


def to_bytes(image: Tensor) -> Tensor:
    """Images [B,3,H,W] in [-1,1] as they are written to files: uint8, floor(127.5 x + 128) clamped to 0..255, as EG3D's FID has it.

    >>> to_bytes(torch.tensor([-1.0, 0.0, 2.0])).tolist()
    [0, 128, 255]
    """
    return (image.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def from_bytes(image: Tensor) -> Tensor:
    """uint8 images as float in [-1,1]."""
    return image.float() / 127.5 - 1


class Extractor(ABC):
    """A named map from images (uint8 [B,3,H,W]) to features [B,d]; ``hash`` changes whenever the features do."""

    name: str
    hash: str
    frechet_column: str
    kernel_column: str

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """Features [B,d], float32, of uint8 images."""

    def reference(self, image: Tensor, batch: int = 64) -> Tensor:
        """Features [N,d] of all real images."""
        return torch.cat([self(image[i : i + batch]) for i in range(0, len(image), batch)])

    def generated(self, image: Tensor) -> Tensor:
        """All that is read of generated uint8 images [B,d+e]: the features, then what only they are measured by."""
        return self(image)

    def standardised(self, features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Both sets as they are compared, float64."""
        return features.double(), reference.double()

    @abstractmethod
    def distances(self, features: Tensor, reference: Tensor) -> tuple[Distance, Distance]:
        """Frechet and kernel distance of generated [n,d] from real [m,d] features."""

    def measures(self, generated: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """Terms of every column, from what ``generated`` gave [n,d+e] and real features [m,d].

        One term per generated image, but a single one for recall: it counts real images, and its chance is not that of
        the latents. Precision and recall are left out where there are no ``NEIGHBOURS`` + 1 images.
        """
        features = generated[:, : reference.shape[1]]
        frechet, kernel = self.distances(features, reference)
        # Kernel distances are shown times 100, as KID is.
        out = {self.frechet_column: frechet.terms, self.kernel_column: 100.0 * kernel.terms}
        if min(len(features), len(reference)) > NEIGHBOURS:
            on_real, covered = precision_and_recall(*self.standardised(features, reference))
            out |= {"precision": on_real.double(), "recall": covered.double().mean()[None]}
        return out

    def rules(self, images: int) -> dict[str, object]:
        """What decides these columns beside the features, for the protocol of ``images`` generated images."""
        return {"neighbours": NEIGHBOURS}


class HeadsFeatures(Extractor):
    """Features of heads: every level of the `unet` segmenter's encoder, averaged over the image.

    They are compared after division by their deviation over the real images, so that each counts alike; the
    deviations are those of the reference set, whose hash stands in the protocol.

    >>> HeadsFeatures()(torch.zeros(2, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([2, 192])
    """

    name = "heads-unet, pooled encoder levels"
    frechet_column, kernel_column = "fd_heads", "kd_heads"

    def __init__(self, weights: Path | None = None, *, device: torch.device | str = "cpu") -> None:
        segmenter = UNetSegmenter(weights)
        self.network, self.resolution = segmenter.network.to(device), segmenter.resolution
        self.device = torch.device(device)
        self.hash = module_hash(self.network)

    @torch.no_grad()
    def __call__(self, image: Tensor) -> Tensor:
        x = from_bytes(image.to(self.device))
        size = (self.resolution, self.resolution)
        if tuple(x.shape[2:]) != size:
            x = nn.functional.interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
        x = self.network.stem(x.contiguous(memory_format=torch.channels_last))
        pooled = []
        for down in self.network.down:
            x = down(x)
            pooled.append(x.mean((2, 3)))
        return torch.cat(pooled, dim=1)

    def distances(self, features: Tensor, reference: Tensor) -> tuple[Distance, Distance]:
        """FD(heads) and KD(heads), of features divided by their deviation over the real images."""
        x, y = self.standardised(features, reference)
        return frechet_distance(x, y), kernel_distance(x, y)

    def standardised(self, features: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Both sets minus the real images' mean, over their deviation."""
        real = reference.double()
        mean, deviation = real.mean(0), real.std(0).clamp_min(LEAST_DEVIATION)
        return (features.double() - mean) / deviation, (real - mean) / deviation


class InceptionFeatures(Extractor):
    """FID's and KID's own features, from torch-fidelity's weight file given by path; see ``fidelity.inception``.

    Of generated images the logits are read too, for the Inception Score.
    """

    name = "inception-v3-compat, 2048"
    frechet_column, kernel_column = "fid", "kid"

    def __init__(self, weights: str | Path, *, device: torch.device | str = "cpu") -> None:
        self._read = inception(weights, device=device)
        self.hash = file_digest(weights)[:16]

    def __call__(self, image: Tensor) -> Tensor:
        return self._read(image)[0]

    def generated(self, image: Tensor) -> Tensor:
        """Features and logits [B,2048+1008]."""
        return torch.cat(self._read(image), dim=1)

    def measures(self, generated: Tensor, reference: Tensor) -> dict[str, Tensor]:
        """FID, KID, IS, precision and recall."""
        score = inception_score(generated[:, reference.shape[1] :])
        return {**super().measures(generated, reference), "is": score.terms}

    def rules(self, images: int) -> dict[str, object]:
        """Neighbours of precision and recall, splits of IS."""
        return {**super().rules(images), "inception_score_splits": splits_of(images)}

    def distances(self, features: Tensor, reference: Tensor) -> tuple[Distance, Distance]:
        """FID and KID as torch-fidelity computes them, with each image's influence by our own derivative."""
        fid, frechet = frechet_inception_distance(features, reference), frechet_distance(features, reference)
        kid = kernel_distance(features, reference, kernel_inception_distance(features, reference))
        return Distance(fid, frechet.terms - frechet.value + fid), kid


def create_extractor(name: str, inception_weights: str | None, device: torch.device | str = "cpu") -> Extractor:
    """Build the extractor that a recipe names: ``heads`` or ``inception`` (which needs its weight file)."""
    if name == "heads":
        return HeadsFeatures(device=device)
    if name == "inception":
        if inception_weights is None:
            raise PriorzooError(
                "evaluation.features: inception needs evaluation.inception_weights, the path of its weight file; nothing is downloaded"
            )
        return InceptionFeatures(inception_weights, device=device)
    raise PriorzooError(f"evaluation.features must be heads or inception, got {name!r}")


def module_hash(module: nn.Module) -> str:
    """First 16 hex digits of the SHA-256 over names, shapes and values of a module's tensors, on any device."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
