"""The measuring process of `priorzoo plan`: ``python -m priorzoo.training.probe RECIPE.yaml DATA_FOLDER RESULT.json``.

A process of its own, because what a process has once held it keeps: a second measure in it would see the first one's peak.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..core.errors import PriorzooError
from ..core.files import write_text_atomically
from ..core.recipe import Recipe, load_recipe
from .dry_run import parameter_counts
from .flop_count import FlopCount
from .objective import Phase
from .peak_memory import forget_peak, peak_memory
from .phase_clock import PhaseClock
from .sources import open_sources
from .trainer import Trainer


def probe(recipe: Recipe, data_folder: Path) -> dict[str, Any]:
    """Run two first steps, in which every phase runs, and return what `planning.Probe` holds.

    The second one is timed: the first fills caches and optimisers. Operations are counted in a third, of a batch of one alone.
    """
    sources = open_sources(recipe, data_folder)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(recipe, Path(folder), sources)
        trainer.start()
        device, clock = trainer.fabric.device, PhaseClock.of(trainer)
        forget_peak(device)
        for _ in range(2):
            trainer.step = 0
            with clock.timing(trainer):
                trainer.train_step()
        peak = peak_memory(device)
        flops = counted(trainer) if recipe.training.batch == 1 else {}
        return {
            "micro_batch": recipe.training.batch, "peak": peak, "parameters": parameter_counts(trainer),
            "seconds": clock.seconds, "intervals": clock.intervals, "flops": flops,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        }  # fmt: skip


def counted(trainer: Trainer) -> dict[str, float]:
    """Return the operations of every phase of a first step: a multiply-add counts two; products and convolutions alone."""
    flops: dict[str, float] = {}

    @contextmanager
    def counting(phase: Phase) -> Iterator[None]:
        with FlopCount() as counter:
            yield
        flops[phase.name] = float(counter.total)

    trainer.step = 0
    with trainer.runner.around(counting):
        trainer.train_step()
    return flops


def main(arguments: list[str]) -> int:
    """Measure, write the result, and return the exit code."""
    recipe, data, result = (Path(a) for a in arguments)
    try:
        write_text_atomically(result, json.dumps(probe(load_recipe(recipe.resolve(), check_files=False), data)))
    except (PriorzooError, MemoryError, torch.cuda.OutOfMemoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
