"""Measuring a run by its recipe's protocol: ``evaluate``, ``ablate`` and a training with ``evaluation.every`` share this one function.

Between these a training is only glanced at, by the same measures of a few samples: metrics/quick.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.registry import ESTIMATORS, SEGMENTERS
from .run import Run
from .sources import Sources, open_sources

if TYPE_CHECKING:
    import torch

    from ..core.recipe import Recipe
    from ..metrics.evaluation import Evaluator, Progress
    from ..metrics.protocol import Result


def evaluator_for(recipe: Recipe, data_folder: Path, *, device: str = "cpu", progress: bool = False) -> Evaluator:
    """Return what measures models by this recipe's ``evaluation`` section; ``data_folder`` is where generated heads are kept.

    Raises DataError when the data cannot be used.
    """
    return evaluator_of(recipe, open_sources(recipe, data_folder, progress=progress), device=device)


def evaluator_of(recipe: Recipe, sources: Sources, *, device: torch.device | str = "cpu") -> Evaluator:
    """Return what measures models by this recipe's ``evaluation`` section on opened data, with its segmenter and estimator.

    Heads recipes that name no segmenter or estimator are measured with the shipped ones: the control of an ablation needs none for
    training, and must be measured like its siblings.
    """
    from ..metrics.evaluation import EvaluationData, Evaluator

    heads = recipe.data is not None and recipe.data.name == "heads"
    parts = []
    for registry, spec, shipped in ((SEGMENTERS, recipe.segmenter, "unet"), (ESTIMATORS, recipe.estimator, "heads")):
        if spec is not None:
            parts.append(registry.create(spec.name, **spec.options))
        else:
            parts.append(registry.create(shipped) if heads else None)
    data = EvaluationData(sources.train, sources.held_out, sources.truth)
    conditioned = recipe.objective.pose_swap is not None
    return Evaluator(recipe.evaluation, data, segmenter=parts[0], estimator=parts[1], conditioned=conditioned, device=device)


def result_path(given: str | os.PathLike[str], run: Run) -> Path:
    """Where the result of a run, of one of its checkpoints, or of weights belongs by default."""
    place = Path(given)
    if (place / "recipe.yaml").is_file():
        return place / "results" / "evaluation.json"
    if run.folder != run.weights.parent:  # one checkpoint of a run
        return run.folder / "results" / f"evaluation-{run.weights.parent.name}.json"
    # Weights with a card may lie in the installed package, where nothing is written.
    return Path("runs") / run.weights.parent.name / "results" / "evaluation.json"


def measure_run(
    run: Run,
    data_folder: Path,
    *,
    evaluator: Evaluator | None = None,
    subject: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
) -> Result:
    """Measure a run's averaged generator; ``evaluator`` (of an equal protocol) spares what several runs have in common."""
    evaluator = evaluator or evaluator_for(run.recipe, data_folder, device=device)
    return evaluator(run.backbone(average=True).to(device), subject=subject or run.folder.name, progress=progress)
