"""Measure a model: images against real ones, shapes against true buffers, an estimator and true heads."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.base import Backbone, Latents, Sampling
from ..core.camera import Camera
from ..core.errors import DataError
from ..core.scene import Scene
from ..core.streams import fixed_streams
from ..segmenters.base import Estimator, Segmenter
from .generating import at_precision, generated_features, samples_per_ray
from .geometry import turned
from .images import Extractor, create_extractor, module_hash
from .inversion import inversion_rules, invert
from .protocol import VERSION, Result
from .real_features import RealFeatures, real_features
from .reference import FRONTAL, EvaluationData, frontal_labels, read_held_out, read_true_heads
from .shapes import (
    NEIGHBOUR_ANGLE,
    SURFACE,
    Truth,
    against_estimate,
    against_segmentation,
    against_truth,
    distribution,
    scene_of_truth,
    shape_rules,
)
from .sharing import ALONE, Processes, shared_out
from .statistics import Array

if TYPE_CHECKING:
    from ..core.recipe.schema import Evaluation

Progress = Callable[[str, int, int], None]
"""Called with the part (images, inversion, shapes), how much of it is done, and how much there is."""
KEPT = 4  # inverted heads that a result carries for pictures


class Evaluator:
    """Measures models under one protocol: what does not depend on the model is computed once, at the first model.

    ``evaluation``: the recipe's section of that name. ``segmenter`` and ``estimator`` may be None: what needs them is
    then left out, as the true columns are without ``data.truth``. ``conditioned``: whether the models map latents
    under their camera. ``processes`` share the work, all calling the same; the result does not depend on how many they
    are. ``cache``: the folder that keeps the real images' features, by default the section's ``feature_cache``.
    ``say`` is told what a person should know.
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
        processes: Processes = ALONE,
        cache: Path | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.plan, self.data, self.conditioned = evaluation, data, conditioned
        self.device, self.processes, self.say = torch.device(device), processes, say
        self.cache = cache if evaluation.feature_cache is None else Path(evaluation.feature_cache)
        self.segmenter = None if segmenter is None else segmenter.to(self.device).eval()
        self.estimator = None if estimator is None else estimator.to(self.device).eval()
        weights = None if evaluation.inception_weights is None else str(evaluation.inception_weights)
        self.extractor = extractor or create_extractor(evaluation.features, weights, self.device)
        self.seconds: dict[str, float] = {}
        self._real: RealFeatures | None = None
        self._heads: Truth | None = None
        self._inverted: Truth | None = None
        self._true: dict[str, Array] = {}

    def __call__(
        self, backbone: Backbone, *, subject: str = "model", progress: Progress | None = None, kept_in: Path | None = None
    ) -> Result | None:
        """Measure one model; its mode and gradients are left as they were. The first process gets the result, others None.

        ``subject`` names it for people. In the folder ``kept_in`` generated images' features are written as they are
        made, so that an evaluation that was stopped goes on there; the caller removes it.
        """
        report = progress if progress is not None and self.processes.rank == 0 else _unheard
        if self.data.real.resolution != backbone.image_resolution:
            raise DataError(
                f"{subject}: makes images of {backbone.image_resolution} x {backbone.image_resolution} pixels, the data set's have "
                f"{self.data.real.resolution} x {self.data.real.resolution}; evaluate against images of the same size"
            )
        training = backbone.training
        with at_precision("32-true", self.device):
            self._prepare(report)
            backbone.to(self.device).eval()
            try:
                return self._measure(backbone, subject, report, kept_in)
            finally:
                backbone.train(training)

    def _measure(self, backbone: Backbone, subject: str, report: Progress, kept_in: Path | None) -> Result | None:
        seconds = dict(self.seconds)
        protocol = self._protocol(backbone)
        with _timed(seconds, "images"):
            terms, features = self._images(backbone, report, protocol["images"], kept_in)
        with _timed(seconds, "inversion"):
            measures, inverted = self._against_truth(backbone, report)
            terms.update(measures)
        with _timed(seconds, "shapes"):
            terms.update(self._shapes(backbone, report))
        if self.processes.rank:
            return None
        true = {key: value for key, value in self._true.items() if key in terms}
        return Result(subject, protocol, terms, true, features, seconds, inverted)

    # ------------------------------------------------------------------------------------------- the model

    def _images(
        self, backbone: Backbone, report: Progress, protocol: dict[str, Any], kept_in: Path | None
    ) -> tuple[dict[str, Array], NDArray[Any] | None]:
        assert self._real is not None
        made = generated_features(
            backbone,
            self.data.real.labels,
            self.extractor,
            self.plan,
            conditioned=self.conditioned,
            processes=self.processes,
            kept_in=kept_in,
            belongs_to=protocol,
            say=self.say,
            progress=lambda done: report("images", done, self.plan.images),
        )
        reference = self._real.features
        if made is None or reference is None:
            return {}, None
        terms = self.extractor.measures(made.to(self.device), reference.to(self.device))
        features = made[:, : reference.shape[1]].numpy().astype(np.float32)
        return {column: values.cpu().numpy() for column, values in terms.items()}, features

    def _against_truth(self, backbone: Backbone, report: Progress) -> tuple[dict[str, Array], dict[str, NDArray[Any]]]:
        """Measures of the inverted heads, and the first of these heads for pictures."""
        if self._inverted is None:
            return {}, {}
        truth = self._inverted

        def measure(first: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
            heads = truth[first : first + self.plan.batch]
            latents = self._inverse(backbone, heads, first, _offset(report, "inversion", first, len(truth)))
            scene = self._render(backbone, latents, heads.camera, first, SURFACE | {"image"})
            kept = {name: scene[name][: max(0, KEPT - first)].cpu() for name in ("image", "depth", "opacity")}
            difference = (scene.image - _sized(heads.image, scene.image)).square().flatten(1).mean(1).sqrt() / 2
            return _at_home({**against_truth(scene, heads), "truth_image": difference}), kept

        parts = shared_out(self.processes, range(0, len(truth), self.plan.batch), measure)
        if parts is None:
            return {}, {}
        return _joined([measures for measures, _ in parts]), {**_kept([kept for _, kept in parts]), **self._kept_truth()}

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

        def measure(first: int) -> dict[str, Tensor]:
            camera = Camera.from_label(labels[first : first + self.plan.batch])
            latents = self._latents(backbone, first, camera)
            scene = self._render(backbone, latents, camera, first, SURFACE | {"image", "weights", "distances"})
            other = self._render(backbone, latents, turned(camera, NEIGHBOUR_ANGLE), first, SURFACE)
            measures = _at_home(self._measured(scene, other))
            report("shapes", first + len(camera), total)
            return measures

        parts = shared_out(self.processes, range(0, total, self.plan.batch), measure)
        return {} if parts is None else _joined(parts)

    def _measured(self, scene: Scene, other: Scene | None) -> dict[str, Tensor]:
        assert self.segmenter is not None
        segmenter = self.segmenter
        scene.set_maker("segmentation", lambda s: segmenter.segment(s.image))
        out = {**against_segmentation(scene), **distribution(scene, other)}
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
        if self._real is not None:
            return
        real = self.data.real
        with _timed(self.seconds, "real images"):
            known = real_features(
                real,
                self.extractor,
                processes=self.processes,
                cache=self.cache,
                say=self.say,
                progress=lambda done: report("real images", done, len(real)),
            )
        if self.data.held_out is not None and self.data.truth is not None:
            with _timed(self.seconds, "true heads"):
                self._read_true_heads(self.data.held_out, self.data.truth)
        self._real = known

    def _read_true_heads(self, held_out: Path, truth: Path) -> None:
        """Heads whose shape is known, on every process; what they themselves measure."""
        if self.plan.held_out:
            self._inverted = read_held_out(held_out, truth, heads=self.plan.held_out).to(self.device)
            scene = scene_of_truth(self._inverted)
            self._true.update(_joined([against_truth(scene, self._inverted)]))
        self._heads = read_true_heads(held_out, truth, heads=self.plan.geometry_samples).to(self.device)
        if self.segmenter is not None:
            other = None if self._heads.other is None else scene_of_truth(self._heads.other)
            self._true.update(_joined([self._measured(scene_of_truth(self._heads), other)]))

    def _protocol(self, backbone: Backbone) -> dict[str, Any]:
        assert self._real is not None
        plan = self.plan
        protocol: dict[str, Any] = {
            "version": VERSION,
            "seed": plan.seed,
            "device": self.device.type,
            "conditioned": self.conditioned,
            "images": {
                "count": plan.images,
                "precision": plan.precision,
                "resolution": backbone.image_resolution,
                "sampling": "random",
                "samples_per_ray": samples_per_ray(backbone, self.data.real.labels, seed=plan.seed, conditioned=self.conditioned),
                "features": self.extractor.name,
                "extractor": self.extractor.hash,
                **self.extractor.rules(plan.images),
                "real": len(self.data.real),
                "data": self.processes.broadcast(self._real.data),
            },
            "shapes": {
                "samples": plan.geometry_samples,
                "precision": "32-true",
                "resolution": self._resolution(backbone),
                "sampling": "deterministic",
                "coarse": plan.sampling.coarse,
                "fine": plan.sampling.fine,
                "frontal": FRONTAL,
                **shape_rules(),
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
    result = evaluator(backbone, subject=subject, progress=progress)
    assert result is not None, "one process alone is the first"
    return result


def _unheard(part: str, done: int, total: int) -> None:
    """What other processes than the first report to."""


def _offset(report: Progress, part: str, first: int, total: int) -> Callable[[float], None]:
    return lambda done: report(part, first + int(done), total)


def _at_home(parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: part.cpu() for key, part in parts.items()}


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
