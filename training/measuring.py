"""Measuring a run by its recipe's protocol: ``evaluate``, ``ablate`` and a training with ``evaluation.every`` share this one function.

Between these a training is only glanced at, by the same measures of a few samples: metrics/quick.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..core.errors import PriorzooError
from ..core.registry import ESTIMATORS, SEGMENTERS
from ..metrics.sharing import ALONE, Processes
from .foreign import is_foreign
from .processes import first_process_says, world_of
from .run import Run
from .sources import Sources, open_sources

if TYPE_CHECKING:
    from ..core.recipe import Recipe
    from ..core.recipe.schema import Training
    from ..metrics.evaluation import Evaluator, Progress
    from ..metrics.protocol import Result


MEASURING = ("evaluation", "data", "segmenter", "estimator")
"""Keys of a recipe that say how a model is measured, and not what it is."""


class FabricProcesses(Processes):
    """The processes that a Lightning Fabric has launched, sharing a measurement."""

    def __init__(self, fabric: Any) -> None:
        self.fabric, self.rank, self.count = fabric, int(fabric.global_rank), int(fabric.world_size)

    def gather(self, value: Any) -> list[Any] | None:
        """Every process's value, on the first process."""
        if self.count == 1:
            return [value]
        everybody: list[Any] | None = [None] * self.count if self.rank == 0 else None
        torch.distributed.gather_object(value, everybody, dst=0)
        return everybody

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on all."""
        return value if self.count == 1 else self.fabric.broadcast(value)


def evaluator_for(
    recipe: Recipe,
    data_folder: Path,
    *,
    device: torch.device | str = "cpu",
    fabric: Any = None,
    cache: Path | None = None,
    progress: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluator:
    """Return what measures models by this recipe's ``evaluation`` section; ``data_folder`` is where generated heads are kept.

    ``fabric``: launched processes that share the work, on their devices. ``cache`` keeps the real images' features where the recipe
    names no folder for them. Raises DataError when the data cannot be used.
    """
    if fabric is not None and fabric.world_size > 1:  # the first process generates what is missing
        first_process_says(fabric, lambda: str(len(open_sources(recipe, data_folder, progress=progress, check=False).train)))
    # Measuring reads every image or none; there is no need to read them once more before.
    sources = open_sources(recipe, data_folder, progress=progress, check=False)
    if fabric is None:
        return evaluator_of(recipe, sources, device=device, cache=cache, say=say)
    return evaluator_of(recipe, sources, device=fabric.device, processes=FabricProcesses(fabric), cache=cache, say=say)


def evaluator_of(
    recipe: Recipe,
    sources: Sources,
    *,
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
    cache: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Evaluator:
    """Return what measures models by this recipe's ``evaluation`` section on opened data, with its segmenter and estimator.

    Real images are never mirrored here (EG3D's FID). Heads recipes that name no segmenter or estimator are measured with the shipped
    ones: the control of an ablation needs none for training, and must be measured like its siblings.
    """
    from ..metrics.evaluation import Evaluator
    from ..metrics.reference import EvaluationData

    heads = recipe.data is not None and recipe.data.name == "heads"
    parts = []
    for registry, spec, shipped in ((SEGMENTERS, recipe.segmenter, "unet"), (ESTIMATORS, recipe.estimator, "heads")):
        if spec is not None:
            parts.append(registry.create(spec.name, **spec.options))
        else:
            parts.append(registry.create(shipped) if heads else None)
    data = EvaluationData(sources.train.stored, sources.held_out, sources.truth)
    conditioned = recipe.objective.pose_swap is not None
    return Evaluator(
        recipe.evaluation, data, segmenter=parts[0], estimator=parts[1], conditioned=conditioned, device=device, processes=processes,
        cache=cache, say=say,
    )  # fmt: skip


def result_path(given: str | os.PathLike[str], run: Run) -> Path:
    """Where the result of a run, of one of its checkpoints, or of weights belongs by default."""
    place = Path(given)
    if (place / "recipe.yaml").is_file():
        return place / "results" / "evaluation.json"
    if run.folder != run.weights.parent:  # one checkpoint of a run
        return run.folder / "results" / f"evaluation-{run.weights.parent.name}.json"
    # Weights with a card may lie in the installed package, where nothing is written; official files lie side by side.
    name = run.weights.stem if is_foreign(run.weights) else run.weights.resolve().parent.name
    return Path("runs") / name / "results" / "evaluation.json"


def measuring_plan(training: Training, *, device: str = "auto", devices: int | None = None) -> Training:
    """Return on what to measure, for ``launch``: processes that torchrun or srun has started, else ``devices`` on this machine.

    ``device`` is auto (the recipe's), cpu or cuda. ``devices`` None: as many as the recipe trains on, as far as this machine has them;
    on a CPU that the recipe does not ask for, one. What is measured does not depend on it.
    """
    accelerator = training.accelerator if device == "auto" else device
    alone = training.model_copy(update={"devices": 1, "nodes": 1, "accelerator": accelerator})
    started = world_of(alone)
    if started.starter != "priorzoo":
        return alone.model_copy(update={"batch": started.size})
    there = torch.cuda.device_count() if accelerator != "cpu" and torch.cuda.is_available() else 0
    usual = min(training.devices, there) if there else training.devices if training.accelerator == "cpu" else 1
    count = devices or usual
    return alone.model_copy(update={"devices": count, "batch": count})


def measuring_recipe(run: Run, given: Recipe | None, subject: str) -> Recipe:
    """Return a run's recipe with data, segmenter, estimator and evaluation of another one, where ``given``.

    Raises PriorzooError where neither names data: an official checkpoint holds none.
    """
    from ..core.recipe import Recipe

    recipe = run.recipe
    if given is not None:
        taken = given.to_plain()
        recipe = Recipe.from_plain({**run.recipe.to_plain(), **{key: taken.get(key) for key in MEASURING}}, where=given.source)
    if recipe.data is None:
        raise PriorzooError(
            f"{subject}: nothing is known of the data that it should be measured against; name a recipe with `data` and `evaluation` "
            "(--recipe ffhq/eg3d_ssr), or the data alone (data.name=eg3d data.path=ffhq.zip)"
        )
    return recipe


def unfinished_folder(target: Path) -> Path:
    """Where generated images' features are kept while the result ``target`` is being made."""
    return target.with_suffix(".unfinished")


def save_result(result: Result, target: Path) -> None:
    """Write a result, and remove what was kept for continuing it."""
    result.save(target)
    shutil.rmtree(unfinished_folder(target), ignore_errors=True)


def measure_run(
    run: Run,
    data_folder: Path,
    *,
    evaluator: Evaluator | None = None,
    subject: str = "",
    device: str = "cpu",
    progress: Progress | None = None,
    kept_in: Path | None = None,
) -> Result | None:
    """Measure a run's averaged generator; ``evaluator`` (of an equal protocol) spares what several runs have in common.

    Where the evaluator has several processes, all of them must call this; the first gets the result, the others None. In ``kept_in``
    features are written as they are made, so that a measurement that was stopped goes on there.
    """
    evaluator = evaluator or evaluator_for(run.recipe, data_folder, device=device)
    backbone = run.backbone(average=True).to(evaluator.device)
    return evaluator(backbone, subject=subject or run.folder.name, progress=progress, kept_in=kept_in)
