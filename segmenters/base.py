"""Segmenter: image to class probabilities. Estimator: image to depth and normals. Both are frozen during GAN training."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn

from ..core.scene import Segmentation


class Segmenter(nn.Module):
    """Base of every segmenter; ``names`` are its classes, in the order of its outputs."""

    registry_name: ClassVar[str] = ""
    names: tuple[str, ...]

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise PriorzooError for options that cannot work, such as a file that is not there; asked before anything is built."""

    @classmethod
    def needs(cls, **options: Any) -> frozenset[str]:
        """Return the one Scene buffer that it reads: ``image`` or ``image_raw``."""
        return frozenset({"image"})

    @classmethod
    def reads_generated_images(cls) -> bool:
        """Whether it can segment images that it has never seen (``truth`` cannot)."""
        return True

    @classmethod
    def class_names(cls, **options: Any) -> tuple[str, ...]:
        """Return the class names without building anything."""
        raise NotImplementedError(f"{cls.__name__} must name its classes")

    def segment(self, image: Tensor) -> Segmentation:
        """Return probabilities [B,K,H,W] at the image's own resolution, detached; ``image`` [B,3,H,W] nominal [-1,1]."""
        raise NotImplementedError


class Estimator(nn.Module):
    """Base of every shape estimator: image to depth and normals, for measuring and for priors that want them."""

    registry_name: ClassVar[str] = ""

    @classmethod
    def check_options(cls, **options: Any) -> None:
        """Raise PriorzooError for options that cannot work, such as a file that is not there; asked before anything is built."""

    def estimate(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return depth [B,1,h,w] (standardised over the foreground: mean 0, deviation 1, larger is farther) and unit
        normals [B,3,h,w] in the **camera's** frame (OpenCV axes, towards the camera: z < 0), detached; ``image``
        [B,3,H,W] nominal [-1,1].
        """
        raise NotImplementedError
