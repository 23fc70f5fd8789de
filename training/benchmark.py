"""Speed and memory of training steps: timed as they are, and once more by part."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.recipe import Recipe
from .flop_count import FlopCount
from .peak_memory import forget_peak, peak_memory
from .phase_clock import now
from .run import circumstances
from .sources import open_sources
from .timing import StepTimer
from .trainer import Trainer


@dataclass
class StepCost:
    """``parts``: seconds a step by part, forward and backward, in the mean over whole cycles of the lazy phases; ``step``: seconds of a
    step without anything that times its parts.

    ``steps``: how many were timed; ``peak_memory`` in bytes (`peak_memory.py`); ``batch`` images a step. ``flops``: of a
    step, forward and backward, where they were counted (convolutions and matrix products, a multiplication and an addition each).
    """

    parts: dict[str, float]
    step: float
    steps: int
    peak_memory: int
    batch: int
    about: dict[str, Any]
    flops: float | None = None

    @property
    def images_per_second(self) -> float:
        """Real images a second."""
        return self.batch / self.step

    @property
    def timed_step(self) -> float:
        """Seconds of a step while its parts are timed: their sum."""
        return sum(self.parts.values())

    def share(self, *names: str) -> float:
        """Share of the step, in [0,1], of the parts whose name begins with one of these."""
        return sum(seconds for part, seconds in self.parts.items() if part.startswith(names)) / self.timed_step

    def to_plain(self) -> dict[str, Any]:
        """Return everything as a mapping for JSON."""
        return {
            "seconds": self.parts, "shares": {part: self.share(part) for part in self.parts},
            "step_seconds": self.step, "timed_step_seconds": self.timed_step, "steps": self.steps,
            "images_per_second": self.images_per_second, "peak_memory_bytes": self.peak_memory, "batch": self.batch, "flops": self.flops,
            "circumstances": self.about,
        }  # fmt: skip


def step_cost(recipe: Recipe, *, data_folder: Path, repeats: int = 1, progress: bool = False, count_flops: bool = False) -> StepCost:
    """Measure the recipe's steps: ``repeats`` times a whole cycle of its lazy phases, plain and by part in turn.

    ``peak_memory`` is that of these steps, as `peak_memory.py` measures it. ``count_flops`` runs one more cycle, untimed.
    """
    sources = open_sources(recipe, data_folder, progress=progress)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, Path(folder), sources)
        trainer.start()
        device = trainer.fabric.device
        intervals = [phase.interval for phase in trainer.phases] + [entry.interval for entry in trainer.priors.main]
        cycle = math.lcm(*intervals)
        forget_peak(device)
        for _ in range(2):  # warm caches and allocators
            trainer.train_step()
        plain, parts = 0.0, StepTimer(trainer)
        for _ in range(repeats):
            plain += _seconds(trainer, cycle)
            with parts:
                _seconds(trainer, cycle)
        peak, flops = peak_memory(device), _flops(trainer, cycle) / cycle if count_flops else None
    steps = cycle * repeats
    by_part = {name: seconds / steps for name, seconds in parts.watch.seconds.items()}
    return StepCost(by_part, plain / steps, steps, peak, recipe.training.batch, circumstances(), flops)


def _seconds(trainer: Trainer, steps: int) -> float:
    start = now(trainer.fabric.device)
    for _ in range(steps):
        trainer.train_step()
    return now(trainer.fabric.device) - start


def _flops(trainer: Trainer, steps: int) -> int:
    with FlopCount() as count:
        for _ in range(steps):
            trainer.train_step()
    return count.total
