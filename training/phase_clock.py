"""Seconds of a training step by phase, from which the time of any number of images follows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .objective import Phase
    from .trainer import Trainer

BESIDE = "data and averages"


@dataclass
class PhaseClock:
    """``seconds``: of each phase's newest run; ``intervals``: every how many steps it runs; ``batch``: images a step.

    >>> PhaseClock(2, {"Gmain": 1, "R1": 16}, {"Gmain": 2.0, "R1": 8.0}).seconds_for(images=32)
    40.0
    """

    batch: int
    intervals: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trainer: Trainer) -> PhaseClock:
        """Return a clock for this trainer's phases."""
        return cls(trainer.batch, {BESIDE: 1, **{phase.name: phase.interval for phase in trainer.phases}})

    def seconds_for(self, images: int) -> float:
        """Return the seconds of so many images: a phase of interval n runs in one step of n."""
        return images / self.batch * sum(seconds / self.intervals[name] for name, seconds in self.seconds.items())

    @contextmanager
    def timing(self, trainer: Trainer) -> Iterator[None]:
        """Time the one step that is run inside, phase by phase."""
        device, inside = trainer.fabric.device, 0.0

        @contextmanager
        def timed(phase: Phase) -> Iterator[None]:
            nonlocal inside
            begin = now(device)
            yield
            self.seconds[phase.name] = now(device) - begin
            inside += self.seconds[phase.name]

        with trainer.runner.around(timed):
            begin = now(device)
            yield
            self.seconds[BESIDE] = now(device) - begin - inside


def now(device: torch.device) -> float:
    """Return seconds, after everything that was handed to the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def duration(seconds: float) -> str:
    """Return seconds in the unit that makes them readable.

    >>> duration(90.0), duration(5400.0), duration(400_000.0)
    ('90 seconds', '90 minutes', '111 hours')
    """
    for unit, length in (("seconds", 1), ("minutes", 60), ("hours", 3600)):
        if seconds < 100 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds / 3600:,.0f} hours" if seconds < 200 * 3600 else f"{seconds / 86400:,.0f} days"
