"""What is looked at while a run trains: a sheet of fixed latents, the depth's jitter, and the hollow-face alarm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from ..backbones.base import Backbone, Sampling
from ..core.camera import Camera
from ..core.files import write_atomically
from ..core.registry import ESTIMATORS, SEGMENTERS
from ..core.streams import fixed_streams
from ..metrics.quick import quick_metrics
from ..training.measuring import evaluator_of
from .buffer_pictures import resized
from .parts import parts
from .portraits import portraits
from .sheets import contact_sheet, png_bytes

if TYPE_CHECKING:
    from ..core.recipe import Recipe
    from ..metrics.evaluation import Evaluator
    from ..training.trainer import Monitor, Trainer


def default_monitors(recipe: Recipe) -> list[Monitor]:
    """Return the monitors of ``priorzoo train``: samples, jitter of depth, and for heads a glance at the shape."""
    monitors: list[Monitor] = [depth_jitter] if recipe.training.samples is None else [SampleSheet(recipe), depth_jitter]
    if recipe.data is not None and recipe.data.name == "heads":
        monitors.append(ShapeGlance())
    if recipe.evaluation.every is not None:
        monitors.append(FullMeasures(recipe.evaluation.every))
    return monitors


class FullMeasures:
    """Measures the moving average as ``priorzoo evaluate`` would, once in ``every`` images, into ``results/evaluation-<images>.json``.

    Asked at every sample picture; acts at the first after each multiple of ``every``.
    """

    def __init__(self, every: int) -> None:
        self.every, self.done = every, 0
        self._evaluator: Evaluator | None = None

    def __call__(self, trainer: Trainer) -> Mapping[str, float]:
        """Measure where it is time, and return the columns' values for the log."""
        if trainer.images // self.every <= self.done:
            return {}
        self.done = trainer.images // self.every
        self._evaluator = self._evaluator or evaluator_of(trainer.recipe, trainer.sources, device=trainer.fabric.device)
        result = self._evaluator(trainer.average, subject=trainer.folder.name)
        assert result is not None, "the evaluator has one process: this one"
        result.save(trainer.folder / "results" / f"evaluation-{trainer.images:09d}.json")
        return {f"evaluation/{key}": result.value(key).value for key in result.columns()}


class ShapeGlance:
    """Logs the estimated normal error of the skin, opacity and roughness: a hollow face is seen within minutes."""

    def __init__(self) -> None:
        self.segmenter = SEGMENTERS.create("unet").eval().requires_grad_(False)
        self.estimator = ESTIMATORS.create("heads").eval().requires_grad_(False)

    def __call__(self, trainer: Trainer) -> Mapping[str, float]:
        """Measure the moving average."""
        labels = trainer.sources.train.labels.to(trainer.fabric.device)
        device = trainer.fabric.device
        found = quick_metrics(trainer.average, labels, segmenter=self.segmenter.to(device), estimator=self.estimator.to(device))
        return {f"glance/{name}": value for name, value in found.items()}


class SampleSheet:
    """Writes ``samples/<images>.png``: a column for each of some fixed latents.

    Rows: the image; of a model with a background the foreground, the background and the transmittance between them (black 0, white 1);
    the normals; the shaded surface from three views.
    """

    def __init__(self, recipe: Recipe) -> None:
        assert recipe.training.samples is not None
        self.count, self.seed = recipe.training.samples.count, recipe.seed
        self.conditioned = recipe.objective.pose_swap is not None

    def __call__(self, trainer: Trainer) -> Mapping[str, float]:
        """Draw the moving average's heads."""
        heads = portraits(trainer.average, self.count, seed=self.seed, conditioned=self.conditioned)
        rows = [[head.image for head in heads]]
        if trainer.average.background is not None:
            apart = parts(trainer.average, self.count, seed=self.seed, conditioned=self.conditioned)
            rows += [[head[what] for head, _ in apart] for what in ("foreground", "background", "transmittance")]
        rows += [[head.normals for head in heads]]
        rows += [[head.surfaces[view] for head in heads] for view in range(len(heads[0].surfaces))]
        side = max(picture.shape[0] for row in rows for picture in row)  # super-resolution makes images larger than the other pictures
        rows = [[resized(picture, side) for picture in row] for row in rows]
        with write_atomically(trainer.folder / "samples" / f"{trainer.images:09d}.png") as beside:
            beside.write_bytes(png_bytes(contact_sheet(rows)))
        return {}


def depth_jitter(trainer: Trainer) -> Mapping[str, float]:
    """Return the deviation of depth between two renders of the same heads that differ in the samples' jitter alone, in pixels.

    A prior on depth chases this noise where it is not small against what the prior is to remove. ``depth/jitter`` is the root mean square
    over opaque pixels, ``depth/jitter_median`` the median absolute difference over sqrt(2).
    """
    return jitter_in_pixels(trainer.average, trainer.recipe.seed)


@torch.no_grad()
def jitter_in_pixels(backbone: Backbone, seed: int, count: int = 4) -> dict[str, float]:
    """Measure `depth_jitter` on ``count`` frontal heads of a backbone."""
    device = next(backbone.parameters()).device
    camera = Camera.looking_at_origin(torch.zeros(count), torch.zeros(count)).to(device)
    streams = fixed_streams(seed, count, device=device)
    latents = backbone.prepare(backbone.draw(count, streams), None)
    needs = frozenset({"depth", "opacity"})
    one, two = (
        backbone.render(latents, camera, needs, streams=streams.within(name), sampling=Sampling("random")) for name in ("one", "two")
    )
    pitch = camera.pixel_pitch(one.depth.shape[-1])[:, None, None, None]
    seen = (one.opacity > 0.8) & (two.opacity > 0.8)
    apart = ((one.depth - two.depth) / pitch)[seen] / 2**0.5
    if not len(apart):
        return {}
    return {"depth/jitter": float(apart.square().mean().sqrt()), "depth/jitter_median": float(apart.abs().median())}
