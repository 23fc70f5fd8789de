"""Measure a model: images against real ones, shapes against true buffers, an estimator and true heads."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.base import Backbone, Latents, Sampling
from ..core.camera import Camera
from ..core.errors import DataError, PriorzooError
from ..core.scene import Scene
from ..core.streams import fixed_streams
from ..segmenters.base import Estimator, Segmenter
from .geometry import turned
from .images import Extractor, create_extractor, generated_images, module_hash
from .inversion import inversion_rules, invert
from .protocol import VERSION, Result
from .reference import FRONTAL, RealImages, frontal_labels, read_held_out, read_true_heads
from .shapes import (
    EROSION,
    FOREGROUND_OPACITY,
    HARDEST,
    NEIGHBOUR_ANGLE,
    SOLID_OPACITY,
    SURFACE,
    Truth,
    against_estimate,
    against_truth,
    distribution,
    scene_of_truth,
)
from .statistics import Array

if TYPE_CHECKING:
    from ..core.recipe.schema import Evaluation

Progress = Callable[[str, int, int], None]
"""Called with the part (images, inversion, shapes), how much of it is done, and how much there is."""
REAL_BATCH = 64
KEPT = 4  # inverted heads that a result carries for pictures


@dataclass
class EvaluationData:
    """``real``: the images that generated ones are compared with, and whose cameras they take. ``held_out``,
    ``truth``: paths of the
    held-out images and their truth, None where shapes have no truth.
    """

    real: RealImages
    held_out: Path | None = None
    truth: Path | None = None


class Evaluator:
    """Measures models under one protocol: what does not depend on the model is computed once, at the first model.

    ``evaluation``: the recipe's section of that name. ``segmenter`` and ``estimator`` may be None: what needs them is
    then left out, as the true columns are without ``data.truth``. ``conditioned``: whether the models map latents
    under their camera.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        data: EvaluationData,
        *,
        segmenter: Segmenter | None,
        estimator: Estimator | None,
        conditioned: bool = False,
        extractor: Extractor | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.plan, self.data, self.conditioned = evaluation, data, conditioned
        self.device = torch.device(device)
        self.segmenter = None if segmenter is None else segmenter.to(self.device).eval()
        self.estimator = None if estimator is None else estimator.to(self.device).eval()
        weights = None if evaluation.inception_weights is None else str(evaluation.inception_weights)
        self.extractor = extractor or create_extractor(evaluation.features, weights, self.device)
        self.seconds: dict[str, float] = {}
        self._reference: Tensor | None = None
        self._data_hash = ""
        self._real_side = 0
        self._heads: Truth | None = None
        self._inverted: Truth | None = None
        self._true: dict[str, Array] = {}

    def __call__(self, backbone: Backbone, *, subject: str = "model", progress: Progress | None = None) -> Result:
        """Measure one model; its mode and gradients are left as they were. ``subject`` names it for people."""
        report = progress or (lambda part, done, total: None)
        self._prepare(report)
        if self._real_side != backbone.image_resolution:
            raise DataError(
                f"{subject}: makes images of {backbone.image_resolution} x {backbone.image_resolution} pixels, the data set's have "
                f"{self._real_side} x {self._real_side}; evaluate against images of the same size"
            )
        seconds = dict(self.seconds)
        training = backbone.training
        backbone.to(self.device).eval()
        try:
            with _timed(seconds, "images"):
                terms, features = self._images(backbone, report)
            with _timed(seconds, "inversion"):
                measures, inverted = self._against_truth(backbone, report)
                terms.update(measures)
            with _timed(seconds, "shapes"):
                terms.update(self._shapes(backbone, report))
            protocol = self._protocol(backbone)
        finally:
            backbone.train(training)
        true = {key: value for key, value in self._true.items() if key in terms}
        return Result(subject, protocol, terms, true, features, seconds, inverted)

    # ------------------------------------------------------------------------------------------- the model

    def _images(self, backbone: Backbone, report: Progress) -> tuple[dict[str, Array], Array]:
        plan = self.plan
        made = generated_images(
            backbone,
            self.data.real.labels,
            images=plan.images,
            batch=plan.batch,
            seed=plan.seed,
            conditioned=self.conditioned,
            progress=lambda done: report("images", done, plan.images),
        )
        features = torch.cat([self.extractor(image).cpu() for image in made])
        assert self._reference is not None
        frechet, kernel = self.extractor.distances(features, self._reference)
        hundred = 100.0  # kernel distances are shown times 100, as KID is
        terms = {
            self.extractor.frechet_column: frechet.terms.numpy(),
            self.extractor.kernel_column: hundred * kernel.terms.numpy(),
        }
        return terms, features.numpy().astype(np.float32)

    def _against_truth(self, backbone: Backbone, report: Progress) -> tuple[dict[str, Array], dict[str, NDArray[Any]]]:
        """Measures of the inverted heads, and the first of these heads for pictures."""
        if self._inverted is None:
            return {}, {}
        truth = self._inverted
        parts, kept = [], []
        for first in range(0, len(truth), self.plan.batch):
            heads = truth[first : first + self.plan.batch]
            latents = self._inverse(backbone, heads, first, _offset(report, "inversion", first, len(truth)))
            scene = self._render(backbone, latents, heads.camera, first, SURFACE | {"image"})
            kept.append({name: scene[name][: max(0, KEPT - first)] for name in ("image", "depth", "opacity")})
            difference = (scene.image - _sized(heads.image, scene.image)).square().flatten(1).mean(1).sqrt() / 2
            parts.append({**against_truth(scene, heads), "truth_image": difference})
        return _joined(parts), {**_kept(kept), **self._kept_truth()}

    def _inverse(self, backbone: Backbone, heads: Truth, first: int, report: Callable[[float], None]) -> Latents:
        """Latents of some held-out heads; ``report`` is told how many heads' worth of steps are done."""
        plan = self.plan.inversion
        return invert(
            backbone,
            heads.image,
            heads.camera,
            steps=plan.steps,
            learning_rate=plan.learning_rate,
            seed=self.plan.seed,
            resolution=plan.resolution or backbone.neural_resolution,
            first=first,
            progress=lambda done: report(len(heads) * done / plan.steps),
        )

    def _kept_truth(self) -> dict[str, NDArray[Any]]:
        """The true side of ``Result.inverted``."""
        assert self._inverted is not None
        truth = self._inverted[:KEPT]
        return {
            "true_image": truth.image.cpu().numpy(),
            "true_depth": truth.depth.cpu().numpy(),
            "labels": truth.labels.to(torch.uint8).cpu().numpy(),
            "camera": truth.camera.label().cpu().numpy(),
        }

    def _shapes(self, backbone: Backbone, report: Progress) -> dict[str, Array]:
        if self.segmenter is None:
            return {}
        total = self.plan.geometry_samples
        labels = self._geometry_labels(total)
        parts = []
        for first in range(0, total, self.plan.batch):
            camera = Camera.from_label(labels[first : first + self.plan.batch])
            latents = self._latents(backbone, first, camera)
            scene = self._render(backbone, latents, camera, first, SURFACE | {"image", "weights", "distances"})
            other = self._render(backbone, latents, turned(camera, NEIGHBOUR_ANGLE), first, SURFACE)
            parts.append(self._measured(scene, other))
            report("shapes", first + len(camera), total)
        return _joined(parts)

    def _measured(self, scene: Scene, other: Scene | None) -> dict[str, Tensor]:
        assert self.segmenter is not None
        segmenter = self.segmenter
        scene.set_maker("segmentation", lambda s: segmenter.segment(s.image))
        out = distribution(scene, other)
        if self.estimator is not None:
            out.update(against_estimate(scene, self.estimator))
        return out

    def _latents(self, backbone: Backbone, first: int, camera: Camera) -> Latents:
        drawn = fixed_streams(self.plan.seed, len(camera), first=first).within("evaluation")
        with torch.no_grad():
            return backbone.prepare(backbone.draw(len(camera), drawn).to(self.device), camera.label() if self.conditioned else None)

    @torch.no_grad()
    def _render(self, backbone: Backbone, latents: Latents, camera: Camera, first: int, needs: frozenset[str]) -> Scene:
        """Render densely, without jitter, at the resolution of the true heads."""
        counts = self.plan.sampling
        streams = fixed_streams(self.plan.seed, len(camera), first=first, device=self.device).within("shapes")
        return backbone.render(
            latents,
            camera,
            needs,
            streams=streams,
            resolution=self._resolution(backbone),
            sampling=Sampling("deterministic", counts.coarse, counts.fine),
        )

    def _resolution(self, backbone: Backbone) -> int:
        return backbone.neural_resolution if self._heads is None else self._heads.depth.shape[-1]

    def _geometry_labels(self, count: int) -> Tensor:
        source = self.data.real.labels if self._heads is None else self._heads.camera.label()
        return frontal_labels(source, count).to(self.device)

    # ------------------------------------------------------------------------- what does not depend on the model

    def _prepare(self, report: Progress) -> None:
        if self._reference is not None:
            return
        with _timed(self.seconds, "real images"):
            self._reference, self._data_hash = self._real_features(report)
        if self.data.held_out is None or self.data.truth is None:
            return
        with _timed(self.seconds, "true heads"):
            if self.plan.held_out:
                self._inverted = read_held_out(self.data.held_out, self.data.truth, heads=self.plan.held_out).to(self.device)
                scene = scene_of_truth(self._inverted)
                self._true.update(_joined([against_truth(scene, self._inverted)]))
            self._heads = read_true_heads(self.data.held_out, self.data.truth, heads=self.plan.geometry_samples).to(self.device)
            if self.segmenter is not None:
                other = None if self._heads.other is None else scene_of_truth(self._heads.other)
                self._true.update(_joined([self._measured(scene_of_truth(self._heads), other)]))

    def _real_features(self, report: Progress) -> tuple[Tensor, str]:
        digest, features, total = hashlib.sha256(), [], len(self.data.real)
        for first in range(0, total, REAL_BATCH):
            images, labels = self.data.real.batch(list(range(first, min(total, first + REAL_BATCH))))
            self._real_side = images.shape[-1]
            digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
            features.append(self.extractor(images).cpu())
            report("real images", min(total, first + REAL_BATCH), total)
        return torch.cat(features), digest.hexdigest()[:16]

    def _protocol(self, backbone: Backbone) -> dict[str, Any]:
        plan = self.plan
        own = self._samples_per_ray(backbone)
        protocol: dict[str, Any] = {
            "version": VERSION,
            "seed": plan.seed,
            "precision": "float32",
            "device": self.device.type,
            "conditioned": self.conditioned,
            "images": {
                "count": plan.images,
                "resolution": backbone.image_resolution,
                "sampling": "random",
                "samples_per_ray": own,
                "features": self.extractor.name,
                "extractor": self.extractor.hash,
                "real": len(self.data.real),
                "data": self._data_hash,
            },
            "shapes": {
                "samples": plan.geometry_samples,
                "resolution": self._resolution(backbone),
                "sampling": "deterministic",
                "coarse": plan.sampling.coarse,
                "fine": plan.sampling.fine,
                "frontal": FRONTAL,
                "foreground_opacity": FOREGROUND_OPACITY,
                "erosion": EROSION,
                "hardest": HARDEST,
                "solid_opacity": SOLID_OPACITY,
                "neighbour_angle": NEIGHBOUR_ANGLE,
                "true_heads": 0 if self._heads is None else len(self._heads),
                "segmenter": None if self.segmenter is None else module_hash(self.segmenter),
                "estimator": None if self.estimator is None else module_hash(self.estimator),
            },
        }
        if self._inverted is not None:
            resolution = plan.inversion.resolution or backbone.neural_resolution
            protocol["inversion"] = {
                "heads": len(self._inverted),
                "steps": plan.inversion.steps,
                "learning_rate": plan.inversion.learning_rate,
                "resolution": resolution,
                **inversion_rules(),
                "images": _hash(self._inverted.image),
            }
        return protocol

    @torch.no_grad()
    def _samples_per_ray(self, backbone: Backbone) -> int | None:
        """How many samples a ray has under the backbone's own sampling; None for a backbone that does not say."""
        camera = Camera.from_label(self.data.real.labels[:1].to(self.device))
        try:
            scene = backbone.render(
                self._latents(backbone, 0, camera),
                camera,
                frozenset({"weights"}),
                resolution=4,
                streams=fixed_streams(self.plan.seed, 1, device=self.device),
                sampling=Sampling("random"),
            )
            return int(scene.weights.shape[-1])
        except PriorzooError:
            return None


def evaluate_model(
    backbone: Backbone,
    evaluation: Evaluation,
    data: EvaluationData,
    *,
    segmenter: Segmenter | None,
    estimator: Estimator | None,
    conditioned: bool = False,
    subject: str = "model",
    progress: Progress | None = None,
) -> Result:
    """Measure one model under a recipe's ``evaluation`` section; see ``Evaluator``, which measures several for less.

    Raises DataError for held-out data that cannot be used, CheckpointError and MissingPackageError for Inception
    features that are not at hand.
    """
    device = next(backbone.parameters()).device
    evaluator = Evaluator(evaluation, data, segmenter=segmenter, estimator=estimator, conditioned=conditioned, device=device)
    return evaluator(backbone, subject=subject, progress=progress)


def _offset(report: Progress, part: str, first: int, total: int) -> Callable[[float], None]:
    return lambda done: report(part, first + int(done), total)


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Array]:
    return {key: torch.cat([part[key] for part in parts]).double().cpu().numpy() for key in parts[0]}


def _kept(parts: list[dict[str, Tensor]]) -> dict[str, NDArray[Any]]:
    return {key: torch.cat([part[key] for part in parts]).float().cpu().numpy() for key in parts[0]}


def _sized(image: Tensor, like: Tensor) -> Tensor:
    if image.shape[2:] == like.shape[2:]:
        return image
    return torch.nn.functional.interpolate(image, size=like.shape[2:], mode="bilinear", antialias=True, align_corners=False)


def _hash(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


@contextmanager
def _timed(seconds: dict[str, float], part: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[part] = time.perf_counter() - start
